import numpy as np
import pytest
import torch

from hica.method import label_propagation
from hica.method.local_training import alignment_loss, embed_all
from hica.steps.alignment import ALIGNMENT, loss_of, schedule_of
from hica.text.bank import TextBank


@pytest.fixture
def lesson_of(ask):
    def lesson_of(site, number=0):
        request = ask(site.study, ALIGNMENT, site.asked_with(), number)
        return ALIGNMENT.lesson(site, site.model, request)

    return lesson_of


def test_the_shots_are_learnt_from_and_nothing_else(new_site, toy_study, lesson_of):
    site = new_site(toy_study())
    lesson = lesson_of(site)
    assert lesson.examples is site.parts["labelled"]
    assert lesson.counted == 4 and lesson.keep == {}
    assert set(site.looked) == {"labelled"}


def test_rates_and_lengths_are_those_of_stage_2_times_the_rate_of_the_round(
    new_site, toy_study, lesson_of
):
    overrides = [
        "alignment.local_epochs=3",
        "alignment.batch_size=5",
        "alignment.learning_rate=0.01",
        "alignment.bank_learning_rate=0.2",
        "alignment.weight_decay=0.3",
        "alignment.text_pull=0.7",
    ]
    schedule = lesson_of(new_site(toy_study(*overrides)), number=1).schedule
    assert (schedule.epochs, schedule.batch_size) == (3, 5)
    assert schedule.learning_rate == pytest.approx(0.005)
    assert schedule.bank_learning_rate == pytest.approx(0.1)
    assert (schedule.weight_decay, schedule.text_pull) == (0.3, 0.7)
    assert schedule_of(toy_study(*overrides)).learning_rate == 0.01
    assert ALIGNMENT.batches(toy_study(*overrides)) == (5, 3)


def test_the_loss_is_the_three_term_objective_as_the_study_weighs_it(new_site, toy_study):
    study = toy_study(
        "alignment.temperature=0.2",
        "alignment.local_weight=0.3",
        "alignment.cross_weight=0.7",
        "alignment.margin=0.15",
    )
    site = new_site(study)
    batch = embed_all(site.model, site.parts["labelled"])
    stage = study.alignment
    expected = alignment_loss(0.2, 0.3, 0.7, 0.15, stage.assignment, stage.contrast)
    found = loss_of(study)(site.model, batch)
    torch.testing.assert_close(found, expected(site.model, batch), rtol=0, atol=0)
    other = loss_of(toy_study())(site.model, batch)
    assert not torch.allclose(found, other)


def test_there_are_no_rounds_where_class_means_are_all_that_is_learnt(toy_study):
    private = ["privacy.epsilon=3.0", "privacy.delta=1e-3", "calibration.rounds=0"]
    alone = ["privacy.mechanism=prototypes", "pretraining.rounds=0"]
    assert ALIGNMENT.rounds(toy_study("alignment.rounds=7")) == 7
    assert ALIGNMENT.rounds(toy_study("alignment.rounds=7", *private, *alone)) == 0


# --- Labels that are spread ----------------------------------------------------------------------


@pytest.fixture
def spreading(new_site, toy_study, monkeypatch):
    """A site of a study that spreads labels, and what the propagation was asked for."""
    asked = []

    def propagated(shots, labels, pool, seed):
        asked.append((len(shots), len(pool), seed))
        return np.where(np.arange(len(pool)) == 5, -1, np.arange(len(pool)) % 2)

    monkeypatch.setattr(label_propagation, "propagated", propagated)
    site = new_site(toy_study("alignment.label_propagation=true"))
    site.shots_in_pool[:2] = True
    return site, asked


def test_spread_labels_never_replace_a_shot_s_own(spreading, lesson_of):
    site, asked = spreading
    lesson = lesson_of(site)
    assert [each[:2] for each in asked] == [(4, 6)]
    shots, pool = site.parts["labelled"], site.parts["unlabelled"]
    # Without the two shots in the pool, and without the image that nobody is sure of.
    assert lesson.examples.labels.tolist() == [*shots.labels.tolist(), 0, 1, 0]
    assert torch.equal(lesson.examples.hidden[:4], shots.hidden)
    assert torch.equal(lesson.examples.hidden[4:, 0], pool.hidden[2:5, 0])
    assert lesson.examples.groups == shots.groups + pool.groups[2:5]
    bank = TextBank.assemble(site.study.class_texts, *site.model.unit_bank())
    expected = bank.positives(torch.tensor([0, 1, 0]), [()] * 3)
    assert torch.equal(lesson.examples.positives[4:], expected)


def test_a_label_is_not_spread_to_an_image_that_was_rejected_until_it_is_accepted(
    spreading, lesson_of
):
    site, _ = spreading
    site.rejected_rows = [2]
    first = lesson_of(site)
    assert first.examples.labels.tolist()[4:] == [1, 0]
    site.keep(first.keep)
    assert lesson_of(site).examples.labels.tolist()[4:] == [1, 0]
    site.rejected_rows = []
    assert lesson_of(site).examples.labels.tolist()[4:] == [0, 1, 0]


def test_a_label_that_was_spread_does_not_count_beside_other_sites_own(spreading, lesson_of):
    assert lesson_of(spreading[0]).counted == 4


def test_which_labels_is_decided_once(spreading, lesson_of):
    site, asked = spreading
    first = lesson_of(site)
    site.keep(first.keep)
    again = lesson_of(site, 1)
    assert len(asked) == 1
    assert again.examples.labels.tolist() == first.examples.labels.tolist()
    assert again.keep["spread"]["labels"].tolist() == first.keep["spread"]["labels"].tolist()


def test_spread_labels_that_are_kept_are_those_of_the_whole_pool(spreading, lesson_of):
    assert lesson_of(spreading[0]).keep["spread"]["labels"].tolist() == [-1, -1, 0, 1, 0, -1]


def test_a_label_that_was_spread_stays_with_its_image_when_another_one_is_gone(
    spreading, lesson_of, monkeypatch
):
    site, _ = spreading
    first = lesson_of(site)
    site.keep(first.keep)
    left, images = [0, 1, 3, 4, 5], site.images("unlabelled")
    pool = site.parts["unlabelled"].rows(torch.tensor(left))
    site.parts["unlabelled"] = pool
    monkeypatch.setattr(site, "images", lambda part: images[left])
    again = lesson_of(site, 1)
    assert again.examples.labels[4:].tolist() == [1, 0]
    assert torch.equal(again.examples.hidden[4:, 0], pool.hidden[2:4, 0])
    assert again.keep["spread"]["labels"].tolist() == [-1, -1, 1, 0, -1]
