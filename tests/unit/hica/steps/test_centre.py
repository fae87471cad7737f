import numpy as np
import pytest

from hica.errors import MessageError
from hica.method.local_training import moments
from hica.steps.arrays import COUNT_SCALE
from hica.steps.centre import CENTRE, noisy_centre, spread
from hica.steps.state import State
from hica.steps.step import Answer
from hica.wire.messages import Reply

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]


def answer_of(features):
    """A site's answer, of feature vectors of whole images; it has no region."""
    nothing = np.zeros(features.shape[1])
    return Answer(
        {
            "sums": np.stack([features.sum(axis=0), nothing]),
            "counts": np.array([float(len(features)), 0.0]),
            "squares": np.stack([np.square(features).sum(axis=0), nothing]),
        },
        len(features),
    )


def empty(width=4):
    return State(centre=np.ones((2, width), np.float32), scale=np.ones((2, width), np.float32))


# --- At the site ---------------------------------------------------------------------------------


def test_the_answer_is_the_sums_over_the_images_for_the_centre(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    answer = CENTRE.answer(site, site.model, ask(study, CENTRE, site.asked_with()))
    expected = moments(site.model, site.parts["centre"])
    np.testing.assert_array_equal(answer.arrays["sums"], expected.sums)
    np.testing.assert_array_equal(answer.arrays["counts"], expected.counts)
    assert answer.examples == 3 and answer.details == {}
    assert set(site.looked) == {"centre"}


@pytest.mark.parametrize(("scaling", "told"), [("global", True), ("none", False)])
def test_squares_leave_where_the_study_scales(new_site, toy_study, ask, scaling, told):
    study = toy_study(f"alignment.scaling={scaling}")
    site = new_site(study)
    answer = CENTRE.answer(site, site.model, ask(study, CENTRE, site.asked_with()))
    assert answer.arrays.keys() == {array.name for array in CENTRE.answers(study)}
    assert ("squares" in answer.arrays) is told


def test_the_site_keeps_its_own_mean(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    answer = CENTRE.answer(site, site.model, ask(study, CENTRE, site.asked_with()))
    expected = answer.arrays["sums"] / answer.arrays["counts"][:, None]
    np.testing.assert_allclose(answer.keep["centre"]["centre"], expected, rtol=1e-5)
    assert answer.keep["centre"]["centre"].dtype == np.float32


def test_a_site_without_regions_keeps_the_mean_of_images_for_both(new_site, toy_study, ask):
    study = toy_study()
    site = new_site(study)
    site.parts["centre"].valid[:] = False
    answer = CENTRE.answer(site, site.model, ask(study, CENTRE, site.asked_with()))
    own = answer.keep["centre"]["centre"]
    assert own[0].any()
    np.testing.assert_array_equal(own[1], own[0])


def test_of_a_private_study_every_image_is_a_unit_row_and_its_regions_another(
    new_site, toy_study, ask
):
    study = toy_study(*PRIVATE)
    site = new_site(study)
    parts = CENTRE.rows(site, site.model, ask(study, CENTRE, site.asked_with()))
    assert parts.examples == 6 and parts.rows.shape == (12, 128)
    assert parts.images.tolist() == [*range(6), *range(6)]
    # Image 1 has no region.
    assert parts.groups.tolist() == [0] * 6 + [1, -1, 1, 1, 1, 1]
    norms = np.linalg.norm(parts.rows, axis=1)
    assert norms[:6] == pytest.approx(np.ones(6), abs=1e-6)
    assert (norms <= 1 + 1e-6).all()
    expected = moments(site.model, site.parts["unlabelled"]).sums[0].numpy()
    np.testing.assert_allclose(parts.rows[:6].sum(axis=0), expected, rtol=0, atol=1e-9)


# --- At the coordinator --------------------------------------------------------------------------


def test_the_centre_is_the_mean_over_all_sites(toy_study, receive):
    draws = np.random.default_rng(0)
    features = {"a": draws.normal(size=(6, 4)), "b": draws.normal(size=(9, 4))}
    answers = {site: answer_of(rows) for site, rows in features.items()}
    for answer in answers.values():
        answer.arrays["sums"][1], answer.arrays["counts"][1] = 6.0, 3.0
        del answer.arrays["squares"]
    before = empty()
    state = CENTRE.combine(before, receive(toy_study(), CENTRE, answers))
    pooled = np.concatenate(list(features.values()))
    np.testing.assert_allclose(state.centre[0], pooled.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(state.centre[1], 2.0)
    assert state.centre.dtype == np.float32
    assert state.scale is before.scale  # without scaling it stays what it was


def test_without_a_region_anywhere_the_row_of_regions_is_that_of_images(toy_study, receive):
    answer = answer_of(np.arange(8.0).reshape(2, 4))
    del answer.arrays["squares"]
    state = CENTRE.combine(empty(), receive(toy_study(), CENTRE, {"a": answer}))
    assert state.centre.tolist() == [[2.0, 3.0, 4.0, 5.0]] * 2


def test_the_scale_is_the_spread_over_the_features_of_all_sites(toy_study, receive):
    draws = np.random.default_rng(0)
    features = {"a": draws.normal(size=(6, 4)), "b": draws.normal(size=(9, 4))}
    study = toy_study("alignment.scaling=global")
    answers = {site: answer_of(rows) for site, rows in features.items()}
    state = CENTRE.combine(empty(), receive(study, CENTRE, answers))
    deviation = np.concatenate(list(features.values())).std(axis=0)
    expected = deviation + 0.05 * deviation.mean()
    np.testing.assert_allclose(state.scale[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(state.scale[1], 1.0)  # no region anywhere
    assert state.scale.dtype == np.float32


def test_a_feature_that_never_moves_is_not_blown_up():
    means, counts = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([4.0, 0.0])
    squares = np.array([[4 * (1.0 + 1.0), 4 * 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(spread(means, squares, counts), [[1.025, 0.025], [1.0, 1.0]])


def test_a_centre_is_the_mean_within_the_sphere_or_nothing():
    sums = np.array([[30.0, 40.0], [3.0, 0.0]])
    centre = noisy_centre(sums, np.array([100.0, 1.0]), deviation=5.0)
    assert centre.tolist() == [[0.3, 0.4], [0.0, 0.0]]
    assert np.linalg.norm(noisy_centre(sums, np.array([10.0, 10.0]), 5.0)[0]) == pytest.approx(1)
    assert not noisy_centre(sums, np.array([-3.0, 0.0]), deviation=0.5)[0].any()


def test_the_noise_in_a_count_decides_what_a_private_centre_is_lost_in(toy_study, receive):
    """A count has 1 / COUNT_SCALE times the noise of a sum."""
    study = toy_study(*PRIVATE)
    arrays = {"sums": np.full((2, 4), 3.0), "counts": np.array([9.0, 7.0])}
    received = receive(study, CENTRE, {"a": Answer(arrays, 9)}, deviation=8.0 * COUNT_SCALE)
    state = CENTRE.combine(empty(), received)
    np.testing.assert_allclose(state.centre, [[1 / 3] * 4, [0.0] * 4], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counts": np.array([-1.0, 0.0])}, "array 'counts' holds values from -1 to 0"),
        ({"counts": np.array([1e12, 0.0])}, "array 'counts' holds values from 0 to 1e"),
        ({"sums": np.full((2, 4), -1e12)}, "array 'sums' holds values from -1e"),
        ({"squares": np.full((2, 4), -1.0)}, "array 'squares' holds values from -1 to -1"),
    ],
)
def test_sums_that_no_images_have_are_refused_but_not_with_noise(toy_study, change, words):
    arrays = answer_of(np.ones((3, 4))).arrays | change
    reply = Reply(CENTRE.kind, "a", 0, 3, {}, arrays)
    with pytest.raises(MessageError) as error:
        CENTRE.check(toy_study("alignment.scaling=global"), empty(), reply)
    assert words in str(error.value)
    CENTRE.check(toy_study(*PRIVATE), empty(), reply)


def test_every_image_may_have_every_region(toy_study):
    """Of `max_images` images with `count` regions each, of the largest features there are."""
    study = toy_study("pretraining.max_images=50", "regions.count=3")
    declared = {array.name: array for array in CENTRE.answers(study)}
    assert declared["sums"].largest == 4096.0 * 50 * 3
    assert CENTRE.most_images(study) == 50
    assert declared["sums"].moves == declared["counts"].moves == 2**0.5  # it is in both rows
