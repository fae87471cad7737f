"""What reviewers say is kept, and used by the next rounds, draws and regions."""

import json

import numpy as np
import pytest
import torch
from tests.unit.hica_client.manifests import rows_of, write_rows

from hica.errors import DataError
from hica.images.cache import file_sha256
from hica.steps.pretraining import PRETRAINING
from hica.wire.messages import Request
from hica_client.app import session_for
from hica_client.decisions import Decision, decide, standing
from hica_client.draws import site_roles
from hica_client.session import Session
from hica_client.site import load_site

FREE = ("federation.min_count=1", "alignment.shots=2")
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
    "alignment.centring=none",
)


@pytest.fixture
def site(draw_site):
    return load_site(draw_site("north"))


def say(site, kind, item, verdict, who="anna", **more):
    decide(site, [Decision(who, kind, item, verdict, **more)])


def image(record):
    return file_sha256(record.image)


def names(rows):
    return [row.name for row in rows]


def test_the_record_says_who_when_and_what_and_is_for_its_owner(site):
    assert standing(site).all == ()
    say(site, "cluster", "a/b/1", "reject", study="s", name="noise <b>", images=("x", "y"))
    (found,) = standing(site).all
    assert (found.reviewer, found.verdict, found.name) == ("anna", "reject", "noise <b>")
    assert found.images == ("x", "y") and found.time.endswith("+00:00")
    assert site.decisions.stat().st_mode & 0o77 == 0


def test_a_record_that_was_changed_is_not_used(site, toy_study):
    say(site, "image", "a", "reject")
    site.decisions.write_bytes(site.decisions.read_bytes().replace(b"reject", b"accept"))
    with pytest.raises(DataError, match=r"decisions\.jsonl: line 1: was changed.*as if nobody"):
        site_roles(site, toy_study(*FREE), keep=False)


def test_the_last_word_of_a_reviewer_counts_and_the_careful_reviewer_is_followed(site):
    for verdict in ("reject", "accept"):
        say(site, "image", "a", verdict)
    assert standing(site).reviewed.rejected == set()
    say(site, "image", "a", "reject", who="ben")
    assert standing(site).reviewed.rejected == {"a"}
    say(site, "image", "a", None, who="ben")
    assert standing(site).reviewed.rejected == set()
    say(site, "label", "a", "round")
    assert standing(site).reviewed.labels == {"a": "round"}
    say(site, "label", "a", "square", who="ben")
    assert standing(site).reviewed.labels == {"a": None}
    say(site, "label", "b", "")
    assert standing(site).reviewed.labels == {"a": None, "b": None}


def test_an_image_stays_rejected_until_its_reviewer_accepts_a_cluster_that_it_is_in(site):
    say(site, "cluster", "s/1/0", "reject", study="s", images=("a", "b"))
    say(site, "cluster", "s/2/4", "accept", study="s", images=("b", "c"), who="ben")
    assert standing(site).in_rejected_clusters("s") == {"a", "b"}
    say(site, "cluster", "s/2/4", "accept", study="s", images=("b", "c"))
    assert standing(site).in_rejected_clusters("s") == {"a"}
    assert standing(site).in_rejected_clusters("other") == set()


# --- Labels --------------------------------------------------------------------------------------


def test_a_corrected_shot_is_learnt_from_with_its_new_label(site, toy_study):
    study = toy_study(*FREE)
    before = site_roles(site, study, keep=True)
    shot = before.shots[0]
    assert shot.label == "round"
    say(site, "label", image(shot), "square")
    roles = site_roles(site, study, keep=True)
    assert {row.name: row.label for row in roles.shots}[shot.name] == "square"
    assert names(roles.shots) == names(before.shots)
    assert (roles.shots_told, roles.classes_told) == (before.shots_told, before.classes_told)
    labels = Session(site, study).examples("labelled").labels.tolist()
    assert sorted(labels) == [0, 1, 1, 1]
    assert any("1 shots have the label" in note.here for note in roles.notes)
    assert [note.told for note in roles.notes] == [note.told for note in before.notes] + [""]


def test_a_corrected_held_out_image_is_neither_tested_nor_learnt_from(site, toy_study):
    study = toy_study(*FREE)
    before = site_roles(site, study, keep=True)
    held = before.test[0]
    say(site, "label", image(held), "square")
    roles = site_roles(site, study, keep=True)
    assert names(roles.test) == names(before.test)[1:]
    assert held.name not in names([*roles.pool, *roles.shots, *roles.rest])
    assert names(roles.pool) == names(before.pool)
    say(site, "label", image(held), None)
    assert names(site_roles(site, study, keep=True).test) == names(before.test)


@pytest.mark.parametrize("verdict", ["", "cyst"])
def test_a_shot_of_none_of_the_classes_is_left_out(site, toy_study, verdict):
    study = toy_study(*FREE)
    shot = site_roles(site, study, keep=True).shots[0]
    say(site, "label", image(shot), verdict)
    roles = site_roles(site, study, keep=True)
    assert shot.name not in names(roles.shots) and shot.name in names(roles.pool)


def test_a_label_given_before_a_study_is_drawn_is_drawn_from(site, toy_study):
    """An unlabelled row beside labelled ones with a split was refused once a label was given."""
    rows = rows_of(site)
    rows[0] |= {"label": "", "split": ""}
    rows[1]["label"] = "round"
    write_rows(site, rows)
    first, second = (site.data.manifest.parent / f"{n}.png" for n in (0, 1))
    say(site, "label", file_sha256(first), "round")
    say(site, "label", file_sha256(second), "square")
    roles = site_roles(site, toy_study("federation.min_count=1", "alignment.shots=4"), keep=False)
    labels = {row.name: row.label for row in roles.shots}
    assert (labels["0.png"], labels["1.png"]) == ("round", "square")


def test_an_image_that_was_left_out_before_a_study_is_drawn_is_no_shot_but_may_be_tested(
    site, toy_study
):
    study = toy_study(*FREE)
    before = site_roles(site, study, keep=False)
    for row in (before.shots[0], before.test[0]):
        say(site, "image", image(row), "reject")
    roles = site_roles(site, study, keep=False)
    assert before.shots[0].name not in names(roles.shots) and len(roles.shots) == 4
    assert names(roles.test) == names(before.test)


# --- Images and clusters -------------------------------------------------------------------------


def keep_clusters(session):
    """Clusters by turns, as stage 1 keeps them; the rows of each."""
    ids = session.images("unlabelled")
    labels = np.arange(len(ids)) % 2
    session.keep({"pseudo_labels": {"labels": labels, "images": ids}}, "q")
    return [[bytes(each).hex() for each in ids[labels == number]] for number in (0, 1)]


def lesson_of(session):
    """What the next round of stage 1 trains on."""
    study, dim = session.study, session.width
    arrays = {
        "centroids": np.eye(3, dim),
        "bank.classes": np.zeros((2, dim), np.float32),
        "bank.findings": np.zeros((4, dim), np.float32),
        "centre": np.zeros((2, dim), np.float32),
        "scale": np.ones((2, dim), np.float32),
        "bias": np.zeros(2),
    }
    from hica.steps.alone import start_of
    from hica.steps.state import Bank

    state = start_of(session, Bank(arrays["bank.classes"], arrays["bank.findings"]))
    request = Request(
        PRETRAINING.kind, study, 0, {"rate": 1.0}, state.arrays() | {"centroids": np.eye(3, dim)}
    )
    return PRETRAINING.lesson(session, session.model(state, centred=False), request)


def same_images(examples, session, rows):
    return torch.equal(examples.hidden, session.examples("unlabelled").hidden[rows])


def test_the_images_of_a_rejected_cluster_are_not_trained_on(site, toy_study):
    session = Session(site, toy_study(*FREE))
    bad = keep_clusters(session)[1]
    assert len(lesson_of(session).examples) == 8
    say(site, "cluster", "s/q/1", "reject", study=session.study.sha256, images=tuple(bad))
    session.look_again()
    lesson = lesson_of(session)
    assert same_images(lesson.examples, session, [0, 2, 4, 6])
    assert lesson.examples.labels.tolist() == [0] * 4
    assert lesson.counted == 8  # how many were rejected is nobody else's business


def test_of_another_study_the_cluster_is_not_rejected(site, toy_study):
    session = Session(site, toy_study(*FREE))
    bad = keep_clusters(session)[1]
    say(site, "cluster", "s/q/1", "reject", study="another", images=tuple(bad))
    session.look_again()
    assert len(lesson_of(session).examples) == 8


def test_a_private_study_leaves_out_single_images_and_no_whole_clusters(site, toy_study):
    """What is said of a cluster depends on all patients in it: one could move the others."""
    session = Session(site, toy_study(*FREE, *PRIVATE))
    good, bad = keep_clusters(session)
    say(site, "cluster", "s/q/1", "reject", study=session.study.sha256, images=tuple(bad))
    say(site, "image", good[0], "reject")
    session.look_again()
    assert session.rejected.tolist() == [True] + [False] * 7


def test_nothing_is_learnt_from_a_rejected_image_in_either_stage(site, toy_study):
    study = toy_study(*FREE)
    session = Session(site, study)
    shot = session.roles.shots[0]
    say(site, "image", image(shot), "reject")
    session.look_again()
    assert shot.name not in names(session.roles.shots)
    assert len(session.examples("labelled")) == 3
    rows = names(session.roles.pool)
    assert np.flatnonzero(session.rejected).tolist() == [rows.index(shot.name)]


def test_a_running_client_takes_in_what_is_decided_and_keeps_its_session(site, toy_study):
    """A new session would throw away the site's part in a secure sum that is under way."""
    request = Request("train.pretrain", toy_study(*FREE), 0)
    session = session_for(site.file, site, request)
    tower = session.pipeline.tower
    say(site, "image", image(session.roles.shots[0]), "reject")
    assert session_for(site.file, site, request) is session
    assert session.rejected.sum() == 1 and session.pipeline.tower is tower


def test_what_a_site_learns_by_itself_leaves_out_the_same(site, toy_study):
    study = toy_study(*FREE)
    session = Session(site, study)
    bad = keep_clusters(session)[1]
    say(site, "cluster", "s/q/1", "reject", study=study.sha256, images=tuple(bad))
    session.look_again()
    with session._by_itself(toy_study("study.seed=9")) as alone:
        assert alone.rejected.tolist() == session.rejected.tolist() and alone.rejected.sum() == 4


# --- Regions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zoomed", [False, True])
def test_a_rejected_region_is_no_region_any_more(site, toy_study, zoomed):
    changes = ("regions.method=superpixels", f"alignment.region_view={str(zoomed).lower()}")
    session = Session(site, toy_study(*FREE, *changes))
    before = session.examples("labelled")
    assert before.valid[0, 0].tolist() == [True, True]
    shot = session.roles.shots[0]
    say(site, "region", f"{session.pipeline.regions_key(shot)}/0", "reject")
    session.look_again()
    after = session.examples("labelled")
    assert after.valid[0, 0].tolist() == [True, False]
    assert torch.equal(after.region_weights[0, 0, 0], before.region_weights[0, 0, 1])
    assert torch.equal(after.hidden[1:], before.hidden[1:])
    if zoomed:  # the view of the largest region is of another one
        assert not torch.equal(after.hidden[0], before.hidden[0])
    say(site, "region", f"{session.pipeline.regions_key(shot)}/0", "accept")
    session.look_again()
    assert torch.equal(session.examples("labelled").valid, before.valid)


def test_a_region_of_another_method_is_not_rejected(site, toy_study):
    session = Session(site, toy_study(*FREE, "regions.method=superpixels"))
    key = session.pipeline.regions_key(session.roles.shots[0])
    say(site, "region", f"{key}/0", "reject")
    other = Session(site, toy_study(*FREE, "regions.method=grid"))
    plain = json.dumps(other.examples("labelled").valid.tolist())
    assert other.pipeline.rejected and "false" not in plain
