import numpy as np
import pytest
import torch

from hica.errors import CheckpointError
from hica.method.local_training import embed_all
from hica.steps.clusters import ASSIGN
from hica.steps.pretraining import PRETRAINING
from hica.steps.state import WEIGHTS
from hica.steps.training import plain_trainer


@pytest.fixture
def taught(new_site, toy_study, ask):
    """A site that has kept the clusters of its images, and its lesson of a round."""

    def taught(*overrides, number=0):
        study = toy_study(*overrides)
        site = new_site(study)
        state = site.asked_with()
        site.keep(ASSIGN.answer(site, site.model, ask(study, ASSIGN, state)).keep)
        return site, PRETRAINING.lesson(site, site.model, ask(study, PRETRAINING, state, number))

    return taught


def test_all_unlabelled_images_are_learnt_from_as_the_clusters_that_were_kept(taught):
    site, lesson = taught()
    kept = site.kept("pseudo_labels")["labels"]
    assert lesson.examples.labels.tolist() == kept.tolist()
    assert len(set(kept.tolist())) > 1
    assert torch.equal(lesson.examples.hidden, site.parts["unlabelled"].hidden)
    assert lesson.counted == 6 and lesson.keep == {}
    assert "labelled" not in site.looked


def test_rates_and_lengths_are_those_of_stage_1_times_the_rate_of_the_round(taught):
    overrides = ["pretraining.local_epochs=3", "pretraining.batch_size=5"]
    _, lesson = taught(*overrides, "pretraining.learning_rate=0.01", number=1)
    schedule = lesson.schedule
    assert (schedule.epochs, schedule.batch_size) == (3, 5)
    assert schedule.learning_rate == pytest.approx(0.005)
    assert PRETRAINING.batches(taught(*overrides)[0].study) == (5, 3)


def test_the_loss_is_toward_the_centroids_that_were_sent(taught):
    site, lesson = taught()
    batch = embed_all(site.model, lesson.examples)
    centroids = torch.from_numpy(site.asked_with().centroids).float()
    logits = batch.images @ torch.nn.functional.normalize(centroids, dim=-1).T
    logits = logits / site.study.pretraining.temperature
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    torch.testing.assert_close(lesson.loss(site.model, batch), expected)


def test_without_the_kept_clusters_nothing_is_taught(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    with pytest.raises(CheckpointError, match="pseudo_labels: missing"):
        PRETRAINING.lesson(site, site.model, ask(study, PRETRAINING, site.asked_with()))


def test_the_centroids_are_asked_with(toy_study, new_site):
    state = new_site(toy_study()).asked_with()
    np.testing.assert_array_equal(
        PRETRAINING.asked(toy_study(), state)["centroids"], state.centroids
    )
    assert [array.name for array in PRETRAINING.asks(toy_study())] == ["centroids"]
    assert PRETRAINING.most_images(toy_study("pretraining.max_images=50")) == 50


def test_what_reviewers_have_rejected_is_not_learnt_from_and_counted_all_the_same(
    new_site, toy_study, ask
):
    study = toy_study()
    site = new_site(study)
    state = site.asked_with()
    site.keep(ASSIGN.answer(site, site.model, ask(study, ASSIGN, state)).keep)
    site.rejected_rows = [0, 3]
    lesson = PRETRAINING.lesson(site, site.model, ask(study, PRETRAINING, state))
    left = [1, 2, 4, 5]
    assert torch.equal(lesson.examples.hidden, site.parts["unlabelled"].hidden[left])
    assert lesson.examples.labels.tolist() == site.kept("pseudo_labels")["labels"][left].tolist()
    assert lesson.counted == 6


def test_where_all_are_rejected_the_weights_stay_as_they_are(new_site, toy_study, ask):
    """The mean loss over no image was a division by zero."""
    study = toy_study()
    site = new_site(study)
    state = site.asked_with()
    request = ask(study, PRETRAINING, state)
    site.keep(ASSIGN.answer(site, site.model, ask(study, ASSIGN, state)).keep)
    site.rejected_rows = list(range(6))
    answer = PRETRAINING.taught(site, site.model, request, plain_trainer(site, request))
    assert answer.examples == 6 and answer.details == {"loss": 0.0}
    for name, value in state.shared.items():
        np.testing.assert_array_equal(answer.arrays[f"{WEIGHTS}{name}"], value)
