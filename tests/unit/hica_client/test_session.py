import csv
import json
import shutil

import numpy as np
import pytest
import torch

from hica.cohort.pipeline import Pipeline
from hica.errors import CheckpointError, DataError, MessageError
from hica.images.cache import file_sha256
from hica.steps.state import Bank, State
from hica.wire.checkpoint import load_state
from hica_client.session import Session
from hica_client.site import load_site


def rewrite(site_file, change):
    """Rewrite a site's manifest: `change` takes the rows and returns them."""
    path = site_file.parent / "manifest.csv"
    rows = change(list(csv.DictReader(path.open())))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def names(records):
    return [record.name for record in records]


@pytest.fixture
def open_session(draw_site, toy_study):
    def open_session(*overrides, change=None, name="north", **site):
        path = draw_site(name, **site)
        if change:
            rewrite(path, change)
        return Session(load_site(path), toy_study(*overrides))

    return open_session


# --- Episode and capabilities --------------------------------------------------------------------


def test_the_draw_is_kept_by_the_hashes_of_its_images(open_session):
    session = open_session("alignment.shots=2")
    kept = json.loads((session.state / "draw.json").read_text())
    assert kept["shots"] == [file_sha256(shot.image) for shot in session.roles.shots]


def test_every_study_has_its_own_state(draw_site, toy_study):
    path = draw_site("north")
    folders = {Session(load_site(path), toy_study(f"study.seed={s}")).state for s in (0, 1)}
    assert len(folders) == 2
    assert all((folder / "draw.json").exists() for folder in folders)


def test_capabilities_count_what_the_site_can_take_part_in(open_session):
    told = open_session("alignment.shots=3").capabilities()
    assert (told["labelled"], told["unlabelled"], told["test"]) == (6, 8, 8)
    assert told["classes"] == {"round": 3, "square": 3}
    assert (told["shortfall"], told["notes"], told["device"]) == ([], [], "cpu")
    assert len(told["tower"]) == 64
    assert set(told["versions"]) == {"hica", "torch", "flwr"}


def test_counts_below_the_minimum_are_hidden(open_session):
    told = open_session("alignment.shots=3", "federation.min_count=4").capabilities()
    assert told["classes"] == {"round": None, "square": None}
    assert (told["labelled"], told["shortfall"]) == (6, [])


def test_no_word_tells_of_which_class_there_are_few(open_session):
    def few_squares(rows):
        return [row for row in rows if row["label"] == "round" or row["image"] in "1.png 9.png"]

    session = open_session("alignment.shots=4", "federation.min_count=3", change=few_squares)
    told = session.capabilities()
    assert told["classes"] == {"round": None, "square": None}
    assert (told["labelled"], told["test"], told["shortfall"]) == (5, 4, [])
    assert not any("square" in note or "round" in note for note in told["notes"])
    assert all("square" in note.here for note in session.roles.notes)


def test_a_class_with_fewer_images_than_shots_is_told(open_session):
    def few_squares(rows):
        return [row for row in rows if row["label"] == "round" or row["image"] in "1.png 3.png"]

    told = open_session("alignment.shots=4", "federation.min_count=1", change=few_squares)
    told = told.capabilities()
    assert told["classes"] == {"round": 4, "square": 2}
    assert told["shortfall"] == ["square"]
    assert told["notes"] == [
        "has fewer than 4 training images of square: learns from all there are"
    ]


def test_a_site_without_labels_takes_part_in_stage_1_only(open_session):
    told = open_session(labelled=False, split=False).capabilities()
    assert (told["labelled"], told["unlabelled"], told["test"]) == (0, 16, 0)
    assert told["classes"] == {"round": 0, "square": 0}


def test_patients_too_few_to_be_evaluated_are_told_as_none(open_session):
    told = open_session("federation.min_count=9").capabilities()
    assert told["test"] == 0
    assert any("federation.min_count = 9" in note for note in told["notes"])


# --- Examples ------------------------------------------------------------------------------------


def test_labels_of_each_role(open_session):
    session = open_session("alignment.shots=2")
    assert session.examples("labelled").labels.tolist() == [0, 0, 1, 1]
    assert session.examples("unlabelled").labels.tolist() == [-1] * 8
    assert session.examples("test").labels.tolist() == [0, 1] * 4


def test_views_of_each_role(open_session):
    session = open_session("alignment.views=5")
    assert session.examples("labelled").hidden.shape[1] == 5
    assert session.examples("unlabelled").hidden.shape[1] == 1
    assert session.examples("test").hidden.shape[1] == 2


def test_without_flip_at_test_there_is_one_view(open_session):
    session = open_session("alignment.flip_at_test=false")
    assert session.examples("test").hidden.shape[1] == 1


def test_the_pool_that_is_told_of_is_the_capped_one(open_session):
    session = open_session("pretraining.max_images=5")
    assert session.capabilities()["unlabelled"] == session.size("unlabelled") == 5


def test_images_beyond_the_shots_lose_their_labels(draw_site, toy_study):
    path = draw_site("north", images=24)
    known = "[data]\nprevalence = { square = 0.25, round = 0.75 }\n"
    path.write_text(path.read_text().replace("[data]\n", known))
    session = Session(load_site(path), toy_study("alignment.shots=2"))
    assert set(session.examples("rest").labels.tolist()) == {-1}
    assert len(session.examples("rest")) == session.size("rest") == 8
    np.testing.assert_allclose(session.rest_shares, [7 / 8, 1 / 8])


def test_which_of_the_pool_are_shots(open_session):
    session = open_session("alignment.shots=2")
    shots = set(names(session.rows("labelled")))
    expected = [name in shots for name in names(session.rows("unlabelled"))]
    assert session.shots_in_pool.tolist() == expected and sum(expected) == 4


def test_findings_that_an_image_may_show_are_those_of_the_label_it_is_given(draw_site, toy_study):
    path = draw_site("north")
    manifest = path.parent / "manifest.csv"
    first, *rows = manifest.read_text().splitlines()
    rows[0] += ",smooth margin"
    manifest.write_text("\n".join([f"{first},findings", rows[0], *(f"{r}," for r in rows[1:])]))
    session = Session(load_site(path), toy_study())
    rows = torch.tensor([names(session.rows("unlabelled")).index(n) for n in ("0.png", "2.png")])
    found = session.positives("unlabelled", rows, torch.tensor([0, 0]))
    assert found.tolist() == [[True, False, False, False], [True, True, False, False]]
    found = session.positives("unlabelled", rows, torch.tensor([1, -1]))
    assert found.tolist() == [[False, False, True, True], [False] * 4]


def test_the_centre_is_of_a_few_images_drawn_from_the_pool(draw_site, toy_study):
    """Manifests list one class after the other: the first few would be of one class."""
    site = load_site(draw_site("north"))
    few, drawn = (
        Session(site, toy_study(*change))
        for change in (
            ("alignment.centre_images=3", "alignment.region_view=true"),
            ("pretraining.max_images=3",),
        )
    )
    assert (len(few.examples("centre")), len(few.examples("unlabelled"))) == (3, 8)
    assert torch.equal(few.examples("centre").hidden, drawn.examples("unlabelled").hidden)


def test_a_role_is_prepared_once(open_session):
    session = open_session()
    assert session.examples("labelled") is session.examples("labelled")


# --- Model and centre ----------------------------------------------------------------------------


def state_of(session, **fields):
    """What a coordinator would send with a fixed bank; sevens for the federation's centre."""
    rows = np.random.default_rng(0).normal(size=(6, 128)).astype(np.float32)
    trainable = session.pipeline.tower.trainable()
    return State(
        **{
            "shared": {
                f"tower.{n}": value.detach().numpy() + 0.5 for n, value in trainable.items()
            },
            "bank": Bank(rows[:2], rows[2:]),
            "centre": np.full((2, 128), 7.0, np.float32),
            "scale": np.full((2, 128), 3.0, np.float32),
            "bias": np.array([1.5, -1.5]),
            **fields,
        }
    )


FIXED = "alignment.train_text_bank=false"


@pytest.mark.parametrize(("centring", "row"), [("global", 7.0), ("site", 3.0), ("none", 0.0)])
def test_the_centre_is_the_one_the_study_asks_for(open_session, centring, row):
    session = open_session(f"alignment.centring={centring}", FIXED)
    session.keep({"centre": {"centre": np.full((2, 128), 3.0, np.float32)}}, "a question")
    assert session.model(state_of(session)).centre.unique().tolist() == [row]
    assert not session.model(state_of(session), centred=False).centre.any()


def test_a_site_that_only_tests_has_no_centre_of_its_own(open_session):
    session = open_session(
        "alignment.centring=site",
        FIXED,
        change=lambda rows: [row for row in rows if row["split"] == "test"],
    )
    assert session.model(state_of(session)).centre.unique().tolist() == [7.0]


def test_a_site_that_has_lost_its_own_centre_says_so(open_session):
    session = open_session("alignment.centring=site", FIXED)
    with pytest.raises(CheckpointError, match="centre: missing"):
        session.model(state_of(session))


def test_the_model_is_what_the_federation_has_learnt(open_session):
    session = open_session(FIXED)
    sent = state_of(session)
    model = session.model(sent)
    assert session.width == sent.width == 128
    for name, value in model.shared().items():
        np.testing.assert_array_equal(value.detach().numpy(), sent.shared[name])
    np.testing.assert_array_equal(model.classes.detach().numpy(), sent.bank.classes)
    np.testing.assert_array_equal(model.findings.detach().numpy(), sent.bank.findings)
    assert model.scale.unique().tolist() == [3.0] and model.bias.tolist() == [1.5, -1.5]
    assert not model.unit_features


def test_weights_of_another_model_are_refused(open_session):
    session = open_session(FIXED)
    with pytest.raises(
        MessageError, match=r"weights do not fit the study's model: \['bank\.classes"
    ):
        session.model(state_of(session, shared={"bank.classes": np.zeros((2, 128), np.float32)}))


def test_features_of_a_private_study_have_norm_1(open_session):
    private = ["privacy.mechanism=dp-sgd", "privacy.epsilon=3.0", "privacy.delta=1e-5"]
    session = open_session(FIXED, *private, "calibration.rounds=0")
    assert session.model(state_of(session)).unit_features


# --- State ---------------------------------------------------------------------------------------


def test_what_is_kept_outlives_the_session(draw_site, toy_study):
    site, study = load_site(draw_site("north")), toy_study()
    Session(site, study).keep({"pseudo_labels": {"labels": np.array([2, 0, 1])}}, "a question")
    again = Session(site, study)
    assert again.kept("pseudo_labels")["labels"].tolist() == [2, 0, 1]
    assert again.has_kept("pseudo_labels") and not again.has_kept("centre")
    assert load_state(again.state, "pseudo_labels")[0]["labels"].tolist() == [2, 0, 1]


def test_an_emptied_state_folder_is_named_with_the_remedy(open_session):
    session = open_session()
    session.keep({"pseudo_labels": {"labels": np.array([2, 0, 1])}}, "a question")
    shutil.rmtree(session.state)
    with pytest.raises(CheckpointError) as error:
        session.kept("pseudo_labels")
    message = str(error.value)
    assert str(session.state / "pseudo_labels") in message
    assert "state folder of north was emptied" in message
    assert "start the study anew" in message


# --- Views and embeddings ------------------------------------------------------------------------


def test_a_view_of_the_largest_region_is_a_view_of_shots_and_tests(open_session):
    session = open_session("alignment.region_view=true", "alignment.views=2")
    assert session.test_views == 3
    assert session.examples("labelled").hidden.shape[1] == 3  # fewer would leave it out
    assert session.examples("test").hidden.shape[1] == 3
    assert session.examples("unlabelled").hidden.shape[1] == 1


def test_embeddings_are_kept_while_weights_and_scale_stay(open_session):
    session = open_session(FIXED)
    model = session.model(state_of(session))
    first = session.embedded("labelled", model)
    assert session.embedded("labelled", model) is first
    model.scale[:] = torch.linspace(1, 2, 128)
    second = session.embedded("labelled", model)
    assert second is not first and not torch.allclose(second.images, first.images)
    with torch.no_grad():
        next(iter(model.shared().values())).mul_(2.0)
    assert session.embedded("labelled", model) is not second


# --- Files that change under a session -----------------------------------------------------------

PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
    "alignment.centring=none",
)


@pytest.mark.parametrize("part", ["labelled", "unlabelled", "centre", "test"])
@pytest.mark.parametrize("private", [True, False])
def test_a_file_that_was_overwritten_is_not_used_as_the_image_that_was_drawn(
    open_session, part, private
):
    """A shot's bytes lay over a held-out file: tested were the pixels that were trained on."""
    session = open_session("alignment.shots=3", *(PRIVATE if private else ()))
    rows = session.rows(part)
    shutil.copy(session.rows("labelled" if part == "test" else "test")[0].image, rows[0].image)
    if private and part != "test":
        examples = session.examples(part)  # a refusal would tell of one patient
        assert len(examples) == len(session.images(part)) == len(rows) - 1
        return
    with pytest.raises(DataError, match=rf"{rows[0].name}: has changed since .* restart"):
        session.examples(part)
    again = Session(session.site, session.study)
    assert rows[0].name not in [row.name for row in again.rows(part)]


def test_a_file_that_changes_while_it_is_prepared_is_not_used(open_session, monkeypatch):
    session = open_session("alignment.shots=3")
    shot = session.rows("labelled")[0]
    key = Pipeline._key

    def overwritten_then(pipeline, record, *rest):
        found = key(pipeline, record, *rest)
        shutil.copy(session.rows("test")[0].image, shot.image)
        return found

    monkeypatch.setattr(Pipeline, "_key", overwritten_then)
    with pytest.raises(DataError, match="has changed since"):
        session.examples("labelled")
