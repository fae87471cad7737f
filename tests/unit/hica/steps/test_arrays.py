import numpy as np
import pytest

from hica.errors import MessageError
from hica.steps.arrays import (
    LARGEST_FEATURE,
    STATE_ARRAYS,
    Array,
    Sizes,
    counts,
    subspace_size,
    sums,
)

PRIVATE = [
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
]


def test_values_up_to_either_end_of_the_range_pass():
    array = Array("a", (3,), "float64", -2.0, 5.0)
    array.check(np.array([-2.0, 0.0, 5.0]))
    array.check(np.array([-6.0, 15.0]), times=3)
    array.check(np.zeros(0))
    assert array.largest == 5.0 and Array("b", (), "float64", -7.0, 5.0).largest == 7.0


@pytest.mark.parametrize(
    ("values", "times", "words"),
    [
        ([0.0, 5.1], 1, "array 'a' holds values from 0 to 5.1, possible are -2 to 5"),
        ([-2.1, 0.0], 1, "array 'a' holds values from -2.1 to 0, possible are -2 to 5"),
        ([-4.1, 0.0], 2, "possible are -4 to 10"),
        ([0.0, 10.1], 2, "possible are -4 to 10"),
        ([0.0, np.nan], 1, "array 'a' holds values from nan to nan"),
    ],
)
def test_values_beyond_the_range_are_refused_by_name(values, times, words):
    with pytest.raises(MessageError) as error:
        Array("a", (2,), "float64", -2.0, 5.0).check(np.array(values), times)
    assert words in str(error.value)


def test_counts_are_never_negative_and_sums_may_be():
    sums((1, 2), 10.0).check(np.array([[-10.0, 10.0]]))
    with pytest.raises(MessageError, match="array 'counts' holds values from -1 to 3"):
        counts(2, 10.0).check(np.array([-1.0, 3.0]))


def test_names_in_a_shape_stand_for_sizes_of_the_study(toy_study):
    sizes = Sizes(toy_study(), width=128, clusters=3)
    named = Array("a", ("classes", "findings", "width", "clusters", "subspace", 7), "f", 0, 1)
    assert sizes.of(named) == (2, 4, 128, 3, 128, 7)
    assert sizes.of(Array("a", (), "f", 0, 1)) == ()


@pytest.mark.parametrize(("wanted", "size"), [(0, 16), (5, 5), (15, 15), (16, 16), (40, 16)])
def test_clusters_of_a_private_study_are_found_in_the_dimensions_that_it_names(
    toy_study, wanted, size
):
    named = f"privacy.cluster_dimensions={wanted}"
    assert subspace_size(toy_study(*PRIVATE, named), 16) == size
    assert subspace_size(toy_study(named), 16) == 16


def test_what_every_request_carries_is_in_the_declared_form(new_site, toy_study):
    study = toy_study()
    carried = new_site(study).asked_with().arrays()
    declared = {array.name: array for array in STATE_ARRAYS}
    assert {name for name in carried if not name.startswith("shared.")} == declared.keys()
    for name, array in declared.items():
        assert Sizes(study, 128, 3).of(array) == carried[name].shape
        assert array.dtype == str(carried[name].dtype)
        array.check(carried[name])
    assert declared["centre"].largest == LARGEST_FEATURE
    with pytest.raises(MessageError, match="'scale'"):  # it is divided by
        declared["scale"].check(np.zeros((2, 4), np.float32))
