import csv

import numpy as np
import pytest

from hica.cohort.roles import assign_roles, drawn
from hica.errors import ConfigurationError, DataError
from hica.images.manifest import read_manifest


def rewrite(manifest, change):
    """Rewrite a manifest: `change` takes the rows and returns them."""
    rows = change(list(csv.DictReader(manifest.open())))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def names(records):
    return [record.name for record in records]


def roles_in(manifest, study, fraction, prevalence, name="north"):
    return assign_roles(name, read_manifest(manifest), "manifest.csv", study, fraction, prevalence)


@pytest.fixture
def assign(draw_site, toy_study):
    """The roles of a drawn site's rows in the toy study with these overrides."""

    def assign(*overrides, change=None, name="north", prevalence=None, **site):
        manifest = draw_site(name, **site).parent / "manifest.csv"
        if change:
            rewrite(manifest, change)
        return roles_in(manifest, toy_study(*overrides), 0.3, prevalence or {}, name)

    return assign


# --- Split ---------------------------------------------------------------------------------------


def test_the_manifests_own_split_is_followed(assign):
    roles = assign(images=16)
    assert names(roles.train) == [f"{i}.png" for i in range(8)]
    assert names(roles.test) == [f"{i}.png" for i in range(8, 16)]


def test_without_a_split_whole_patients_are_held_out(assign):
    def pair_up(rows):
        return [{**row, "patient_id": f"p{int(row['patient_id'][1:]) // 4}"} for row in rows]

    roles = assign("federation.min_count=1", images=32, split=False, change=pair_up)
    train = {record.group for record in roles.train}
    test = {record.group for record in roles.test}
    assert train and test and not train & test
    assert len(roles.train) + len(roles.test) == 32


def test_the_drawn_split_is_the_same_whatever_the_order_of_the_rows(draw_site, toy_study):
    manifest = draw_site("north", images=32, split=False).parent / "manifest.csv"
    first = roles_in(manifest, toy_study(), 0.3, {})
    rewrite(manifest, lambda rows: rows[::-1])
    again = roles_in(manifest, toy_study(), 0.3, {})
    assert sorted(names(first.test)) == sorted(names(again.test))
    assert sorted(names(first.shots)) == sorted(names(again.shots))


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_as_many_patients_are_held_out_as_the_site_says(draw_site, toy_study, fraction):
    manifest = draw_site("north", images=32, split=False).parent / "manifest.csv"
    roles = roles_in(manifest, toy_study(), fraction, {})
    assert len(roles.test) == fraction * 32


def test_unlabelled_images_of_a_held_out_patient_are_not_trained_on(assign):
    def unlabel_every_fourth(rows):
        # Patients of two images, of which one has no label.
        return [
            {**row, "patient_id": f"p{i // 2}", "label": "" if i % 4 == 1 else row["label"]}
            for i, row in enumerate(rows)
        ]

    roles = assign(images=32, split=False, change=unlabel_every_fourth)
    assert not {r.group for r in roles.train} & {r.group for r in roles.test}
    assert all(record.label for record in roles.test)
    assert any(record.label is None for record in roles.train)
    assert len(roles.train) + len(roles.test) < 32  # theirs lie on neither side


def test_a_patient_on_both_sides_of_the_manifests_split_is_an_error(assign):
    def same_patient(rows):
        rows[15]["patient_id"] = rows[0]["patient_id"]
        return rows

    with pytest.raises(DataError, match=r"manifest\.csv: patients.*both sides.*'patient:p0'"):
        assign(images=16, change=same_patient)


def test_labels_the_study_does_not_know_are_an_error(assign):
    def misspell(rows):
        rows[3]["label"] = "sqare"
        return rows

    with pytest.raises(DataError, match=r"'sqare' \(1\).*classes are round, square"):
        assign(change=misspell)


# --- Known prevalence ----------------------------------------------------------------------------


PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
]


KNOWN = {"square": 0.5, "round": 0.5}


def test_what_lies_beyond_the_shots_is_used_with_the_prevalence(assign):
    known = {"square": 0.25, "round": 0.75}
    roles = assign("alignment.shots=2", images=24, prevalence=known)
    shots, rest = set(names(roles.shots)), set(names(roles.rest))
    assert len(roles.train) == 12 and len(rest) == 8
    assert not shots & rest and not (rest | shots) & set(names(roles.test))
    # 9 of 12 are round and 3 square; 2 of each were drawn.
    np.testing.assert_allclose(roles.rest_shares, [7 / 8, 1 / 8])
    assert roles.notes == []


def test_shares_need_not_add_up_exactly(assign):
    known = {"square": 0.251, "round": 0.753}
    roles = assign("alignment.shots=2", images=24, prevalence=known)
    assert roles.rest_shares.sum() == pytest.approx(1.0, abs=1e-12)


def test_no_more_of_it_than_the_study_takes_images_without_labels(assign):
    few = ("alignment.shots=1", "pretraining.max_images=3", "pretraining.clusters=2")
    assert len(assign(*few, images=24, prevalence=KNOWN).rest) == 3


def test_without_a_prevalence_nothing_is_prepared_for_one(assign):
    roles = assign("alignment.shots=2")
    assert roles.rest == [] and roles.rest_shares is None


def test_a_prevalence_of_other_classes_is_an_error(assign):
    words = r"north: data\.prevalence: gives shares of benign, malignant, .*are round, square; give"
    with pytest.raises(ConfigurationError, match=words):
        assign(prevalence={"benign": 0.7, "malignant": 0.3})


def test_a_site_without_images_beyond_the_shots_is_told(assign):
    roles = assign("alignment.shots=4", images=16, prevalence=KNOWN)
    assert roles.rest == [] and roles.rest_shares is None
    assert "no training images beyond the shots" in roles.notes[0].told


def test_a_private_study_does_not_use_it(assign):
    roles = assign("alignment.shots=2", *PRIVATE, images=16, prevalence=KNOWN)
    assert roles.rest == [] and roles.rest_shares is None
    assert "a private study does not use" in roles.notes[0].told


# --- Shots, pool and held-out patients -----------------------------------------------------------


def test_shots_are_those_of_the_episode_class_by_class(assign):
    roles = assign("alignment.shots=2")
    assert names(roles.shots) == [roles.train[index].name for index in roles.episode.indices]
    assert [record.label for record in roles.shots] == ["round"] * 2 + ["square"] * 2


def test_a_class_with_fewer_images_than_shots_gives_all_it_has_and_is_named(assign):
    def few_squares(rows):
        return [row for row in rows if row["label"] == "round" or row["image"] in "1.png 3.png"]

    roles = assign("alignment.shots=4", "federation.min_count=1", change=few_squares)
    assert [record.label for record in roles.shots] == ["round"] * 4 + ["square"] * 2
    (note,) = roles.notes
    assert note.told == "has fewer than 4 training images of square: learns from all there are"
    assert note.here == note.told


def test_where_a_class_has_few_patients_no_class_is_counted_or_named(assign):
    def few_squares(rows):
        return [row for row in rows if row["label"] == "round" or row["image"] in "1.png 3.png"]

    roles = assign("alignment.shots=4", "federation.min_count=3", change=few_squares)
    assert (roles.shots_told, roles.classes_told) == (6, [None, None])
    assert "square" in roles.notes[-1].here
    assert "square" not in roles.notes[-1].told and "4" not in roles.notes[-1].told


def test_many_images_of_few_patients_are_not_counted(assign):
    def two_patients_of_squares(rows):
        owner = {"round": "r", "square": "s"}
        number = {"round": 16, "square": 2}
        return [
            {**row, "patient_id": owner[row["label"]] + str(i // 2 % number[row["label"]])}
            for i, row in enumerate(rows)
        ]

    overrides = ("alignment.shots=4", "federation.min_count=3")
    assert assign(*overrides, name="a").classes_told == [4, 4]
    roles = assign(*overrides, name="b", change=two_patients_of_squares, split=False)
    assert roles.classes_told == [None, None]


def test_in_a_private_study_of_images_counts_are_of_enough_patients(assign):
    def one_patient_of_squares(rows):
        return [
            {**row, "patient_id": "s" if row["label"] == "square" else row["patient_id"]}
            for row in rows
            if row["split"] == "train"
        ]

    overrides = (*PRIVATE, "privacy.unit=image", "alignment.shots=4", "federation.min_count=3")
    assert assign(*overrides, name="a").classes_told == [4, 4]
    roles = assign(*overrides, name="b", change=one_patient_of_squares)
    assert (roles.shots_told, roles.classes_told) == (8, [None, None])


@pytest.mark.parametrize(("min_count", "test", "noted"), [(4, 8, False), (5, 0, True)])
def test_too_few_held_out_patients_are_not_evaluated(assign, min_count, test, noted):
    roles = assign(f"federation.min_count={min_count}")
    assert len(roles.test) == roles.test_told == test
    told = [note.told for note in roles.notes]
    assert any("of each class than federation.min_count = 5" in note for note in told) == noted
    assert names(roles.train) == [f"{i}.png" for i in range(8)]  # nor are they trained on


def test_held_out_patients_of_a_small_class_are_counted_nowhere(assign):
    def one_square(rows):
        return [row for row in rows if row["label"] == "round" or int(row["image"][:-4]) < 10]

    roles = assign("federation.min_count=4", change=one_square)
    assert (len(roles.test), roles.test_told) == (5, 4)
    (note,) = roles.notes
    assert "fewer patients of square than federation.min_count = 4" in note.here
    assert note.told == (
        "holds out too few patients of a class to evaluate them (federation.min_count)"
    )


@pytest.mark.parametrize(("fraction", "test"), [(0.0, 0), (1.0, 32)])
def test_a_private_split_may_hold_out_nobody_or_everybody(draw_site, toy_study, fraction, test):
    manifest = draw_site("north", images=32, split=False).parent / "manifest.csv"
    roles = roles_in(manifest, toy_study(*PRIVATE), fraction, {})
    assert len(roles.test) == roles.test_told == test
    assert len(roles.train) == 32 - test
    assert roles.classes_told == ([0, 0] if test else [roles.shots_told // 2] * 2)
    assert roles.shots_told <= len(roles.train)


def test_patients_are_what_is_counted_not_images(assign):
    def one_patient_held_out(rows):
        return [
            {**row, "patient_id": "p8" if row["split"] == "test" else row["patient_id"]}
            for row in rows
        ]

    assert assign(change=one_patient_held_out).test == []


def test_the_pool_is_capped_and_the_same_for_every_seed(assign):
    pools = [
        assign("pretraining.max_images=5", f"study.seed={seed}", name=f"site-{seed}").pool
        for seed in (0, 1)
    ]
    assert names(pools[0]) == names(pools[1])
    assert len(pools[0]) == 5


def test_what_is_drawn_depends_on_no_order_and_is_the_start_of_a_larger_draw(assign):
    rows = assign(images=24).train
    assert names(drawn(rows, 5)) == names(drawn(rows[::-1], 5)) == names(drawn(rows, 7))[:5]
    assert names(drawn(rows, 5)) != names(rows[:5])
    assert drawn(rows, 12) is rows  # all of them: as they are
