"""What was drawn stays drawn, whatever becomes of manifest, files and settings."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.hica_client.manifests import Folder

from hica.cohort.draw import hash_of
from hica.errors import CheckpointError, DataError
from hica.steps.pretraining import matched
from hica_client.audit import Event, append
from hica_client.draws import site_roles
from hica_client.session import Session
from hica_client.withdrawal import withdraw

FREE = ("federation.min_count=1", "alignment.shots=3")
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
    "alignment.centring=none",
)


EDITS = (
    "remove",
    "remove a patient",
    "reorder",
    "rename",
    "rename to a name that was there",
    "relabel",
    "another patient's",
    "link",
    "add",
    "copy",
    "overwrite",
    "split",
    "fraction",
)


def hashes(records):
    return {hash_of(record) for record in records}


def learnt_from(roles):
    return [*roles.pool, *roles.shots, *roles.rest]


@given(
    st.lists(st.sampled_from(EDITS), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nobody_is_tested_who_was_trained_on_and_every_label_stays_with_its_image(
    tmp_path_factory, draw_site_below, toy_study, edits, split, private, draws
):
    root = tmp_path_factory.mktemp("site")
    folder = Folder(draw_site_below(root, "north", images=24, split=split))
    study = toy_study(*FREE, *(PRIVATE if private else ()))
    first = site_roles(folder.site, study, keep=True)
    given_to = {first.ids[row.name]: hash_of(row) for row in first.pool}
    trained, tested = hashes(learnt_from(first)), hashes(first.test)
    patients = {row.patient_id for row in learnt_from(first)}
    told = (first.shots_told, first.classes_told, first.pool_told)
    assert trained and not trained & tested
    for edit in edits:
        folder.change(edit, draws)
        try:
            roles = site_roles(folder.site, study, keep=True)
        except DataError:
            continue  # no manifest of this package any more, and said so
        assert hashes(learnt_from(roles)) <= trained
        assert hashes(roles.test) <= tested
        patients |= {row.patient_id for row in learnt_from(roles)}
        assert not patients & {row.patient_id for row in roles.test}
        assert (roles.shots_told, roles.classes_told, roles.pool_told) == told
        assert all(given_to[roles.ids[row.name]] == hash_of(row) for row in roles.pool)


def test_a_pseudo_label_stays_with_its_image_whatever_becomes_of_its_row(draw_site, toy_study):
    """0 of 48 matched after the rows were sorted; two rows less ended the study."""
    folder = Folder(draw_site("north", images=24))
    study = toy_study(*FREE)
    session = Session(folder.site, study)
    images = session.images("unlabelled")
    labels = np.arange(len(images))
    session.keep({"pseudo_labels": {"labels": labels, "images": images}}, "a question")
    given_to = {hash_of(row): label for row, label in zip(session.roles.pool, labels, strict=True)}
    folder.write(folder.rows()[:1:-1])
    again = Session(folder.site, study)
    rows, found = matched(again.images("unlabelled"), again.kept("pseudo_labels"))
    assert found.tolist() == [given_to[hash_of(again.roles.pool[row])] for row in rows]
    assert len(rows) == len(again.roles.pool) == len(images) - 2


@pytest.mark.parametrize("split", [True, False])
def test_without_edits_and_in_any_order_of_rows_everything_is_as_it_was(
    draw_site, toy_study, split
):
    folder = Folder(draw_site("north", images=24, split=split))
    study = toy_study(*FREE)
    one = site_roles(folder.site, study, keep=True)
    again = site_roles(folder.site, study, keep=True)
    assert again == one
    folder.write(folder.rows()[::-1])
    turned = site_roles(folder.site, study, keep=True)
    for part in ("pool", "shots", "centre", "test", "rest", "ids", "classes_told"):
        assert getattr(turned, part) == getattr(one, part)


def test_another_share_held_out_moves_nobody_and_is_told(draw_site, toy_study):
    """34 of 40 trained shots lay in the new test."""
    folder = Folder(draw_site("north", images=24, split=False))
    study = toy_study(*FREE)
    one = Session(folder.site, study)
    text = folder.site_file.read_text()
    folder.site_file.write_text(text.replace("[data]", "[data]\ntest_fraction = 0.8"))
    two = Session(folder.site, study)
    assert (two.roles.test, two.roles.pool) == (one.roles.test, one.roles.pool)
    (note,) = two.roles.notes
    assert "data.test_fraction is 0.8 in place of 0.3" in note.here
    assert two.capabilities()["notes"] == [note.told]
    assert "0.8" not in note.told


def test_what_has_changed_is_told_to_the_site_in_numbers_and_to_the_coordinator_without(
    draw_site, toy_study
):
    folder = Folder(draw_site("north", images=24))
    study = toy_study(*FREE)
    Session(folder.site, study)
    rows = folder.rows()
    rows[0]["label"] = "square"
    rows[1]["patient_id"] = rows[-1]["patient_id"]  # one who is held out
    del rows[2]
    folder.write(rows)
    session = Session(folder.site, study)
    here = "\n".join(note.here for note in session.roles.notes)
    assert "the manifest has changed" in here
    assert "1 images are gone, or their files hold others: left out (2.png …)" in here
    assert "1 images have another label" in here
    assert "2 held-out images are of patients who are learnt from, by patient_id" in here
    (told,) = session.capabilities()["notes"]
    assert "nothing new is taken in" in told and not any(map(str.isdigit, told))


def test_a_private_study_is_not_told_that_something_has_changed(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    study = toy_study(*FREE, *PRIVATE)
    notes = Session(folder.site, study).capabilities()["notes"]
    folder.write(folder.rows()[1:])
    assert Session(folder.site, study).capabilities()["notes"] == notes


def test_check_keeps_nothing_of_a_study(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    site_roles(folder.site, toy_study(*FREE), keep=False)
    assert not folder.site.data.state.exists()


def test_an_image_in_two_files_is_not_tested_where_it_is_learnt_from(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    rows = folder.rows()
    shutil.copy(folder.root / rows[0]["image"], folder.root / rows[-1]["image"])
    roles = site_roles(folder.site, toy_study(*FREE), keep=True)
    assert len(roles.test) == 10  # nor is the other image of that patient
    assert not hashes(roles.test) & hashes(roles.pool)
    here = "\n".join(note.here for note in roles.notes)
    assert "holds out 1 images that are learnt from in another file" in here
    assert "1 held-out images are of patients who are learnt from, by patient_id" in here


def test_files_that_are_the_same_are_learnt_from_as_the_manifest_has_them(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    shutil.copy(folder.root / "0.png", folder.root / "1.png")
    study = toy_study(*FREE)
    one = site_roles(folder.site, study, keep=True)
    assert len(one.pool) == 12 and len(set(one.ids.values())) == 24
    assert site_roles(folder.site, study, keep=True) == one


def test_a_study_whose_draw_is_gone_is_not_drawn_anew(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    session = Session(folder.site, toy_study(*FREE))
    (session.state / "answers").mkdir()
    (session.state / "draw.json").unlink()
    with pytest.raises(CheckpointError, match=r"draw\.json: missing, though this study has begun"):
        Session(folder.site, toy_study(*FREE))


@pytest.mark.parametrize(
    ("kind", "decision", "lost"),
    [
        ("train.align", "sent", True),
        ("train.align", "refused", False),
        ("query.capabilities", "sent", False),
    ],
)
def test_a_study_whose_whole_folder_is_gone_is_not_drawn_anew_once_anything_was_learnt(
    draw_site, toy_study, kind, decision, lost
):
    """95 of 143 images that were then tested had been trained on."""
    folder, study = Folder(draw_site("north", images=24)), toy_study(*FREE)
    state = Session(folder.site, study).state
    event = Event("message", decision, kind=kind, study=study.sha256)
    append(folder.site.audit_log, event)
    shutil.rmtree(state)
    if lost:
        with pytest.raises(CheckpointError, match=r"draw\.json: missing, though this study has be"):
            site_roles(folder.site, study, keep=False)
    else:
        site_roles(folder.site, study, keep=True)
    site_roles(folder.site, toy_study(*FREE, "study.seed=5"), keep=True)


def test_a_damaged_draw_is_named_with_the_remedy(draw_site, toy_study):
    folder = Folder(draw_site("north", images=24))
    path = Session(folder.site, toy_study(*FREE)).state / "draw.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(CheckpointError, match=r"is not what was written there .* from a backup"):
        Session(folder.site, toy_study(*FREE))


def test_an_image_that_cannot_be_read_ends_a_plain_study_and_no_private_one(
    draw_site, toy_study, monkeypatch
):
    folder = Folder(draw_site("north", images=24))

    def unreadable(path):
        if path.name == "0.png":
            raise DataError(f"{path}: cannot be read: Permission denied")
        return path.read_bytes()

    monkeypatch.setattr("hica.cohort.draw.read_bytes", unreadable)
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        site_roles(folder.site, toy_study(*FREE), keep=True)
    assert not (folder.site.data.state).exists()
    roles = site_roles(folder.site, toy_study(*FREE, *PRIVATE), keep=True)
    assert len(roles.pool) == 12


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("by_third", [True, False])
def test_a_twin_of_a_trained_image_is_not_tested_after_that_one_was_withdrawn(
    draw_site, toy_study, seen, by_third
):
    """Said to be twins in the middle of a study, seen by a session or not; or by a third image."""
    folder = Folder(draw_site("north", images=24))
    study = toy_study(*FREE)
    first = site_roles(folder.site, study, keep=True)
    trained, third, twin = first.pool[0], first.test[0], first.test[-1]

    def link(mark, *images):
        names = [image.name for image in images]
        rows = folder.rows()
        folder.write([{**row, "dup_group": mark if row["image"] in names else ""} for row in rows])

    link("d1", trained, third if by_third else twin)
    if seen:
        site_roles(folder.site, study, keep=True)
    withdraw(folder.site, trained.patient_id, "somebody")
    if by_third:
        site_roles(folder.site, study, keep=True)
        link("d2", third, twin)
        withdraw(folder.site, third.patient_id, "somebody")
    roles = site_roles(folder.site, study, keep=True)
    assert twin.name not in [row.name for row in roles.test] and roles.test
    kept = (folder.site.study_folder(study.sha256) / "draw.json").read_text()
    assert f'"patient:{trained.patient_id}"' not in kept and f'"{trained.name}"' not in kept


def test_a_file_s_name_links_nobody_when_another_image_has_it(draw_site, toy_study):
    """Every file took its neighbour's name: nobody was tested any more."""
    folder, study = Folder(draw_site("north", images=24)), toy_study(*FREE)
    rows = [{**row, "patient_id": "", "mask": ""} for row in folder.rows()]
    folder.write(rows)
    tested = hashes(site_roles(folder.site, study, keep=True).test)
    names = [row["image"] for row in rows]
    for name in names:
        (folder.root / name).rename(folder.root / f"{name}.before")
    shifted = [*names[1:], names[0]]
    for before, name in zip(names, shifted, strict=True):
        (folder.root / f"{before}.before").rename(folder.root / name)
    folder.write([{**row, "image": name} for row, name in zip(rows, shifted, strict=True)])
    roles = site_roles(folder.site, study, keep=True)
    assert hashes(roles.test) == tested and len(tested) == 12
    assert not any("of patients who are learnt from" in note.here for note in roles.notes)


def test_a_group_that_has_the_name_of_one_of_its_files_links_them(draw_site, toy_study):
    folder, study = Folder(draw_site("north", images=24)), toy_study(*FREE)
    folder.write([{**row, "patient_id": ""} for row in folder.rows()])
    first = site_roles(folder.site, study, keep=True)
    names = (first.pool[0].name, first.test[0].name)
    rows = folder.rows()
    folder.write([{**r, "dup_group": names[0] if r["image"] in names else ""} for r in rows])
    roles = site_roles(folder.site, study, keep=True)
    assert len(roles.test) == 11
    here = "\n".join(note.here for note in roles.notes)
    assert "1 held-out images are of patients who are learnt from, by dup_group: not" in here
    assert "restore the manifest and draw.json from a backup" in here
