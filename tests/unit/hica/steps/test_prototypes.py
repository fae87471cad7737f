import numpy as np
import pytest

from hica.errors import MessageError
from hica.method.class_means import blended_start, nearest_mean
from hica.method.local_training import class_sums, embed_all
from hica.method.shrinkage import class_means
from hica.steps.prototypes import MEANS, PROTOTYPES
from hica.steps.state import Bank, State
from hica.steps.step import Answer
from hica.wire.messages import Reply
from hica.wire.weight_names import BANK_CLASSES, BANK_FINDINGS

BUDGET = ["privacy.epsilon=3.0", "privacy.delta=1e-3", "calibration.rounds=0"]
PRIVATE = [*BUDGET, "privacy.mechanism=dp-sgd"]
ALONE = [*BUDGET, "privacy.mechanism=prototypes", "pretraining.rounds=0"]


def unit_rows(count, seed, dim=4):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def state():
    return State(
        shared={
            "tower.weight": np.ones(3, np.float32),
            BANK_CLASSES: unit_rows(2, 0),
            BANK_FINDINGS: unit_rows(4, 2),
        },
        bank=Bank(unit_rows(2, 0), unit_rows(4, 1)),
        centre=np.zeros((2, 4), np.float32),
        bias=np.zeros(2),
    )


def answer_of(seed, counts):
    counts = np.array(counts)
    sums = np.random.default_rng(seed).normal(size=(2, 4)) * (counts > 0)[:, None]
    return Answer({"sums": sums, "counts": counts}, round(counts.sum()))


# --- At the site ---------------------------------------------------------------------------------


def test_the_answer_is_class_sums_of_the_shots(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study, labelled=["p0", "p1", "p2"])
    answer = PROTOTYPES.answer(site, site.model, ask(study, PROTOTYPES, site.asked_with()))
    batch = embed_all(site.model, site.parts["labelled"].first_views(1))
    sums, counts = class_sums(batch, 2)
    np.testing.assert_array_equal(answer.arrays["sums"], sums)
    assert answer.arrays["counts"].tolist() == counts.tolist() == [2.0, 1.0]
    assert answer.examples == 3
    own = class_means(batch.images.double().numpy(), batch.labels.numpy(), 2)
    assert answer.keep.keys() == {MEANS}
    for name, value in own._asdict().items():
        np.testing.assert_array_equal(answer.keep[MEANS][name], value)
    assert set(site.looked) == {"labelled"}


def test_of_a_private_study_a_shot_is_the_mean_of_all_its_views(new_site, toy_study, ask):
    study = toy_study(*PRIVATE)
    site = new_site(study)
    parts = PROTOTYPES.rows(site, site.model, ask(study, PROTOTYPES, site.asked_with()))
    expected = embed_all(site.model, site.parts["labelled"])
    np.testing.assert_array_equal(parts.rows, expected.images.double().numpy())
    assert parts.groups.tolist() == [0, 1, 0, 1] and parts.images.tolist() == [0, 1, 2, 3]
    assert parts.examples == 4
    first = embed_all(site.model, site.parts["labelled"].first_views(1)).images.double().numpy()
    assert not np.allclose(parts.rows, first)


# --- At the coordinator --------------------------------------------------------------------------


def test_prototypes_move_both_the_bank_and_what_it_is_pulled_to(state, toy_study, receive):
    answers = {"a": answer_of(1, [2.0, 3.0]), "b": answer_of(2, [1.0, 4.0])}
    after = PROTOTYPES.combine(state, receive(toy_study(), PROTOTYPES, answers))
    sums = sum(answer.arrays["sums"] for answer in answers.values())
    expected = blended_start(state.bank.classes, sums, np.array([3.0, 7.0]))
    np.testing.assert_array_equal(after.bank.classes, expected)
    np.testing.assert_array_equal(after.shared[BANK_CLASSES], expected)
    assert after.bank.classes.dtype == np.float32
    assert not np.allclose(expected, state.bank.classes)


def test_nothing_else_is_moved(state, toy_study, receive):
    received = receive(toy_study(), PROTOTYPES, {"a": answer_of(1, [2.0, 3.0])})
    after = PROTOTYPES.combine(state, received)
    assert after.bank.findings is state.bank.findings and after.bias is state.bias
    assert after.shared["tower.weight"] is state.shared["tower.weight"]
    assert after.shared[BANK_FINDINGS] is state.shared[BANK_FINDINGS]
    np.testing.assert_array_equal(state.shared[BANK_CLASSES], unit_rows(2, 0))  # as it was before


def test_a_bank_that_starts_at_the_means_forgets_the_texts(state, toy_study, receive):
    received = receive(
        toy_study("alignment.bank_start=means"), PROTOTYPES, {"a": answer_of(1, [2.0, 3.0])}
    )
    after = PROTOTYPES.combine(state, received)
    expected = blended_start(
        np.zeros((2, 4), np.float32), received.arrays["sums"], received.arrays["counts"]
    )
    np.testing.assert_array_equal(after.bank.classes, expected)


def test_weights_in_half_precision_stay_in_it(state, toy_study, receive):
    study = toy_study("federation.precision=half")
    after = PROTOTYPES.combine(state, receive(study, PROTOTYPES, {"a": answer_of(1, [2.0, 3.0])}))
    assert after.shared[BANK_CLASSES].dtype == np.float16
    assert after.bank.classes.dtype == np.float32


def test_a_noisy_count_below_one_counts_as_one(state, toy_study, receive):
    answer = answer_of(1, [5.0, 3.0])
    answer.arrays["counts"][1] = -2.0
    after = PROTOTYPES.combine(state, receive(toy_study(*PRIVATE), PROTOTYPES, {"a": answer}))
    expected = blended_start(state.bank.classes, answer.arrays["sums"], np.array([5.0, 1.0]))
    np.testing.assert_array_equal(after.bank.classes, expected)


def test_where_nothing_is_trained_class_means_are_the_whole_classifier(state, toy_study, receive):
    study = toy_study(*ALONE, "alignment.bank_start=means")
    answer = answer_of(1, [5.0, 3.0])
    received = receive(study, PROTOTYPES, {"a": answer}, deviation=0.1)
    after = PROTOTYPES.combine(state, received)
    images = np.random.default_rng(3).normal(size=(40, 4))
    rows, offsets = nearest_mean(answer.arrays["sums"], answer.arrays["counts"], 0.1)
    wanted = (images @ rows.T - offsets).argmax(axis=1)
    logits = images @ after.bank.classes.T / study.alignment.temperature + after.bias
    assert (logits.argmax(axis=1) == wanted).all()
    assert set(wanted) == {0, 1} and after.bias.any()
    np.testing.assert_allclose(np.linalg.norm(after.bank.classes, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(after.shared[BANK_CLASSES], after.bank.classes)


def test_texts_speak_too_where_the_study_does_not_forget_them(state, toy_study, receive):
    answer = answer_of(1, [5.0, 3.0])
    with_texts, without = (
        PROTOTYPES.combine(state, receive(toy_study(*ALONE, *more), PROTOTYPES, {"a": answer}))
        for more in ([], ["alignment.bank_start=means"])
    )
    assert not np.allclose(with_texts.bank.classes, without.bank.classes)


def test_negative_counts_are_refused_but_not_with_noise(state, toy_study):
    arrays = {"sums": np.zeros((2, 4)), "counts": np.array([3.0, -1.0])}
    reply = Reply(PROTOTYPES.kind, "a", 0, 4, {}, arrays)
    with pytest.raises(MessageError, match="array 'counts' holds values from -1 to 3"):
        PROTOTYPES.check(toy_study(), state, reply)
    PROTOTYPES.check(toy_study(*PRIVATE), state, reply)


def test_no_more_images_than_there_may_be_shots(toy_study):
    assert PROTOTYPES.most_images(toy_study("alignment.shots=5")) == 10
