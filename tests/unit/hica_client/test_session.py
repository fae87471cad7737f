import csv
import json
import shutil

import numpy as np
import pytest
import torch

from hica.errors import CheckpointError, ConfigurationError, DataError
from hica.text.bank import TextBank
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


def bank_of(study, dim=128):
    rows = torch.nn.functional.normalize(
        torch.randn(6, dim, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    return TextBank.assemble(study.class_texts, rows[:2], rows[2:])


@pytest.fixture
def open_session(draw_site, toy_study):
    def open_session(*overrides, change=None, name="north", **site):
        path = draw_site(name, **site)
        if change:
            rewrite(path, change)
        return Session(load_site(path), toy_study(*overrides))

    return open_session


# --- Roles ---------------------------------------------------------------------------------------


def test_the_manifests_own_split_is_followed(open_session):
    session = open_session(images=16)
    assert names(session.train) == [f"{i}.png" for i in range(8)]
    assert names(session.test) == [f"{i}.png" for i in range(8, 16)]


def test_without_a_split_whole_patients_are_held_out(open_session):
    def pair_up(rows):
        return [{**row, "patient_id": f"p{int(row['patient_id'][1:]) // 4}"} for row in rows]

    session = open_session("federation.min_count=1", images=32, split=False, change=pair_up)
    train = {record.group for record in session.train}
    test = {record.group for record in session.test}
    assert train and test and not train & test
    assert len(session.train) + len(session.test) == 32


def test_the_drawn_split_is_the_same_whatever_the_order_of_the_rows(draw_site, toy_study):
    path = draw_site("north", images=32, split=False)
    first = Session(load_site(path), toy_study())
    rewrite(path, lambda rows: rows[::-1])
    again = Session(load_site(path), toy_study())
    assert sorted(names(first.test)) == sorted(names(again.test))
    shots = [sorted(s.train[i].name for i in s.episode.indices) for s in (first, again)]
    assert shots[0] == shots[1]


def test_unlabelled_images_of_a_held_out_patient_are_not_trained_on(open_session):
    def unlabel_every_fourth(rows):
        # Patients of two images, of which one has no label.
        return [
            {**row, "patient_id": f"p{i // 2}", "label": "" if i % 4 == 1 else row["label"]}
            for i, row in enumerate(rows)
        ]

    session = open_session(images=32, split=False, change=unlabel_every_fourth)
    assert not {r.group for r in session.train} & {r.group for r in session.test}
    assert all(record.label for record in session.test)
    assert any(record.label is None for record in session.train)
    assert len(session.train) + len(session.test) < 32  # theirs lie on neither side


def test_a_patient_on_both_sides_of_the_manifests_split_is_an_error(open_session):
    def same_patient(rows):
        rows[15]["patient_id"] = rows[0]["patient_id"]
        return rows

    with pytest.raises(DataError, match=r"manifest\.csv: patients.*both sides.*'patient:p0'"):
        open_session(images=16, change=same_patient)


def test_labels_the_study_does_not_know_are_an_error(open_session):
    def misspell(rows):
        rows[3]["label"] = "sqare"
        return rows

    with pytest.raises(DataError, match=r"'sqare' \(1\).*classes are round, square"):
        open_session(change=misspell)


# --- Known prevalence ----------------------------------------------------------------------------


PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
]


def knowing(path, shares):
    text = path.read_text()
    path.write_text(text.replace("[data]\n", f"[data]\nprevalence = {{ {shares} }}\n"))
    return load_site(path)


def test_what_lies_beyond_the_shots_is_used_with_the_prevalence(draw_site, toy_study):
    site = knowing(draw_site("north", images=24), "square = 0.25, round = 0.75")
    session = Session(site, toy_study("alignment.shots=2"))
    shots = {session.train[index].name for index in session.episode.indices}
    assert len(session.train) == 12 and len(session.rest) == 8
    assert not shots & set(names(session.rest)) and not {*names(session.rest), *shots} & set(
        names(session.test)
    )
    # 9 of 12 are round and 3 square; 2 of each were drawn.
    np.testing.assert_allclose(session.shares_of_the_rest, [7 / 8, 1 / 8])
    examples = session.beyond_shots(bank_of(session.study))
    assert len(examples) == 8 and set(examples.labels.tolist()) == {-1}
    assert session.notes == []


def test_no_more_of_it_than_the_study_takes_images_without_labels(draw_site, toy_study):
    site = knowing(draw_site("north", images=24), "square = 0.5, round = 0.5")
    few = toy_study("alignment.shots=1", "pretraining.max_images=3", "pretraining.clusters=2")
    assert len(Session(site, few).rest) == 3


def test_without_a_prevalence_nothing_is_prepared_for_one(open_session):
    assert open_session("alignment.shots=2").rest == []


def test_a_prevalence_of_other_classes_is_an_error(draw_site, toy_study):
    site = knowing(draw_site("north"), "benign = 0.7, malignant = 0.3")
    words = r"north: data\.prevalence: gives shares of benign, malignant, .*are round, square; give"
    with pytest.raises(ConfigurationError, match=words):
        Session(site, toy_study())


def test_a_site_without_images_beyond_the_shots_is_told(draw_site, toy_study):
    site = knowing(draw_site("north", images=16), "square = 0.5, round = 0.5")
    session = Session(site, toy_study("alignment.shots=4"))
    assert session.rest == [] and "no training images beyond the shots" in session.notes[0]


def test_a_private_study_does_not_use_it(draw_site, toy_study):
    site = knowing(draw_site("north", images=16), "square = 0.5, round = 0.5")
    private = toy_study("alignment.shots=2", *PRIVATE)
    session = Session(site, private)
    assert session.rest == [] and "a private study does not use" in session.notes[0]


# --- Episode and capabilities --------------------------------------------------------------------


def test_the_episode_is_kept_by_the_names_of_its_images(open_session):
    session = open_session("alignment.shots=2")
    kept = json.loads((session.state / "episode.json").read_text())
    assert kept["images"] == [session.train[i].name for i in session.episode.indices]
    assert [session.train[i].label for i in session.episode.indices] == ["round"] * 2 + [
        "square"
    ] * 2


def test_every_study_has_its_own_state(draw_site, toy_study):
    path = draw_site("north")
    folders = {Session(load_site(path), toy_study(f"study.seed={s}")).state for s in (0, 1)}
    assert len(folders) == 2
    assert all((folder / "episode.json").exists() for folder in folders)


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


def test_a_class_with_fewer_images_than_shots_gives_all_it_has_and_is_named(open_session):
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


@pytest.mark.parametrize(("min_count", "test", "noted"), [(8, 8, False), (9, 0, True)])
def test_too_few_held_out_patients_are_not_evaluated(open_session, min_count, test, noted):
    session = open_session(f"federation.min_count={min_count}")
    told = session.capabilities()
    assert told["test"] == test
    assert any("federation.min_count = 9" in note for note in told["notes"]) == noted
    assert names(session.train) == [f"{i}.png" for i in range(8)]  # nor are they trained on


def test_patients_are_what_is_counted_not_images(open_session):
    def one_patient_held_out(rows):
        return [
            {**row, "patient_id": "p8" if row["split"] == "test" else row["patient_id"]}
            for row in rows
        ]

    assert open_session(change=one_patient_held_out).capabilities()["test"] == 0


# --- Examples ------------------------------------------------------------------------------------


def test_labels_of_each_role(open_session):
    session = open_session("alignment.shots=2")
    bank = bank_of(session.study)
    assert session.labelled(bank).labels.tolist() == [0, 0, 1, 1]
    assert session.unlabelled(bank).labels.tolist() == [-1] * 8
    assert session.held_out(bank).labels.tolist() == [0, 1] * 4


def test_views_of_each_role(open_session):
    session = open_session("alignment.views=5")
    bank = bank_of(session.study)
    assert session.labelled(bank).hidden.shape[1] == 5
    assert session.unlabelled(bank).hidden.shape[1] == 1
    assert session.held_out(bank).hidden.shape[1] == 2


def test_without_flip_at_test_there_is_one_view(open_session):
    session = open_session("alignment.flip_at_test=false")
    assert session.held_out(bank_of(session.study)).hidden.shape[1] == 1


def test_the_pool_is_capped_and_the_same_for_every_seed(open_session):
    pools = [
        open_session("pretraining.max_images=5", f"study.seed={seed}", name=f"site-{seed}").pool
        for seed in (0, 1)
    ]
    assert [row.name for row in pools[0]] == [row.name for row in pools[1]]
    assert len(pools[0]) == 5
    assert open_session("pretraining.max_images=5").capabilities()["unlabelled"] == 5


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
    bank = bank_of(few.study)
    assert (len(few.for_the_centre(bank)), len(few.unlabelled(bank))) == (3, 8)
    assert torch.equal(few.for_the_centre(bank).hidden, drawn.unlabelled(bank).hidden)


def test_a_role_is_prepared_once(open_session):
    session = open_session()
    bank = bank_of(session.study)
    assert session.labelled(bank) is session.labelled(bank)


# --- Model and centre ----------------------------------------------------------------------------


def tower_weights(session):
    """What a coordinator would send with a fixed bank."""
    trainable = session.pipeline.tower.trainable()
    return {f"tower.{name}": value.detach().clone() for name, value in trainable.items()}


def build_model(session):
    """With sevens for the federation's centre."""
    model = session.model(bank_of(session.study), tower_weights(session))
    model.centre.copy_(session.centre(torch.full((2, 128), 7.0)))
    return model


@pytest.mark.parametrize(("centring", "row"), [("global", 7.0), ("site", 3.0), ("none", 0.0)])
def test_the_centre_is_the_one_the_study_asks_for(open_session, centring, row):
    session = open_session(f"alignment.centring={centring}", "alignment.train_text_bank=false")
    session.keep("centre", centre=np.full((2, 128), 3.0, np.float32))
    model = build_model(session)
    assert model.centre.unique().tolist() == [row]
    assert model.scale.unique().tolist() == [1.0]
    assert not model.bias.any()


def test_a_site_that_only_tests_has_no_centre_of_its_own(open_session):
    session = open_session(
        "alignment.centring=site",
        "alignment.train_text_bank=false",
        change=lambda rows: [row for row in rows if row["split"] == "test"],
    )
    model = build_model(session)
    assert model.centre.unique().tolist() == [7.0]


# --- State ---------------------------------------------------------------------------------------


def test_what_is_kept_outlives_the_session(draw_site, toy_study):
    site, study = load_site(draw_site("north")), toy_study()
    Session(site, study).keep("pseudo_labels", labels=np.array([2, 0, 1]))
    assert Session(site, study).kept("pseudo_labels")["labels"].tolist() == [2, 0, 1]


def test_an_emptied_state_folder_is_named_with_the_remedy(open_session):
    session = open_session()
    session.keep("pseudo_labels", labels=np.array([2, 0, 1]))
    shutil.rmtree(session.state)
    with pytest.raises(CheckpointError) as error:
        session.kept("pseudo_labels")
    message = str(error.value)
    assert str(session.state / "pseudo_labels") in message
    assert "state folder of north was emptied" in message
    assert "start the study anew" in message


# --- Views and labels that are spread ------------------------------------------------------------


def test_a_view_of_the_largest_region_is_a_view_of_shots_and_tests(open_session):
    session = open_session("alignment.region_view=true", "alignment.views=2")
    bank = bank_of(session.study)
    assert session.test_views == 3
    assert session.labelled(bank).hidden.shape[1] == 3  # fewer would leave it out
    assert session.held_out(bank).hidden.shape[1] == 3
    assert session.unlabelled(bank).hidden.shape[1] == 1


def test_embeddings_are_kept_while_weights_and_scale_stay(open_session):
    session = open_session("alignment.train_text_bank=false")
    bank, model = bank_of(session.study), build_model(session)
    first = session.embedded("labelled", model, bank)
    assert session.embedded("labelled", model, bank) is first
    model.scale[:] = torch.linspace(1, 2, 128)
    second = session.embedded("labelled", model, bank)
    assert second is not first and not torch.allclose(second.images, first.images)


def test_spread_labels_are_decided_once_and_never_replace_a_shots_own(open_session, monkeypatch):
    asked = []

    def propagated(shots, labels, pool, seed):
        asked.append((len(shots), len(pool)))
        return np.arange(len(pool)) % 2

    monkeypatch.setattr("hica_client.session.propagated", propagated)
    session = open_session(
        "alignment.label_propagation=true", "alignment.train_text_bank=false", "alignment.shots=1"
    )
    bank, model = bank_of(session.study), build_model(session)
    examples = session.labelled_and_spread(model, bank)
    shots, pool = len(session.episode.indices), len(session.pool)
    assert (shots, pool) == (2, 8) and asked == [(2, 8)]
    assert len(examples) == pool  # the shots, and the pool without them
    assert torch.equal(examples.labels[:shots], session.labelled(bank).labels)
    drawn = {session.train[index].name for index in session.episode.indices}
    others = [n % 2 for n, record in enumerate(session.pool) if record.name not in drawn]
    assert examples.labels[shots:].tolist() == others
    assert examples.hidden.shape[1] == session.labelled(bank).hidden.shape[1]
    session.labelled_and_spread(model, bank)
    assert len(asked) == 1
