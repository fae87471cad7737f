"""C. A number that is hidden stays hidden: it follows from no total, metric or word beside it."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hica.method.evaluation import site_metrics
from hica.steps.evaluation import EVALUATION
from hica.wire.messages import Request
from hica_client.app import capabilities
from hica_client.session import Session

FEWEST = 5
SQUARES = [f"p{number}" for number in (9, 11, 13, 15)]
"""Held out at a drawn site, beside four round ones; in training are p0 to p7, odd ones square."""


def measured(probabilities, labels, groups, min_count=FEWEST):
    found = site_metrics(
        probabilities,
        labels,
        groups,
        np.shape(probabilities)[1],
        resamples=20,
        seed=3,
        min_count=min_count,
    )
    return json.dumps(found.to_dict())


# --- Metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [[12], [10, 20], [7, 5, 11]])
@pytest.mark.parametrize("images", [1, 3])
def test_11_all_as_one_class_does_not_tell_how_many_are_of_it(others, images):
    """Accuracy times n was the number of images of the class that was predicted for all."""
    for predicted in range(len(others) + 1):
        seen = set()
        for few in range(1, FEWEST):
            labels = np.repeat(np.arange(len(others) + 1), np.multiply([*others, few], images))
            groups = [str(image // images) for image in range(len(labels))]
            probabilities = np.zeros((len(labels), len(others) + 1))
            probabilities[:, predicted] = 1.0
            seen.add(measured(probabilities, labels, groups))
        assert len(seen) == 1


@st.composite
def sites(draw):
    """Held-out images of two classes with enough patients, and of a third with few, twice."""
    large = [draw(st.lists(st.integers(1, 3), min_size=FEWEST, max_size=9)) for _ in range(2)]
    few = st.lists(st.integers(1, 12), min_size=1, max_size=FEWEST - 1)
    return large, (draw(few), draw(few)), draw(st.integers(0, 2**32 - 1)), draw(st.booleans())


@given(sites())
def test_11_whoever_is_of_a_small_class_nothing_that_is_told_changes(site):
    """For any predictions, however many images, and where they are a shown patient's as well."""
    large, small, seed, shared = site

    def told(few, few_seed):
        rng, of_few = np.random.default_rng(seed), np.random.default_rng(few_seed)
        labels, groups, rows = [], [], []
        for label, patients, draws in ((0, large[0], rng), (1, large[1], rng), (2, few, of_few)):
            for number, images in enumerate(patients):
                owner = 0 if shared and label == 2 else label
                labels += [label] * images
                groups += [f"{owner}-{number}"] * images
                rows += [draws.dirichlet(np.ones(3)) for _ in range(images)]
        return measured(np.array(rows), labels, groups)

    assert told(small[0], 1) == told(small[1], 2)


def test_11_a_class_of_many_images_of_one_patient_is_hidden():
    """Images were counted: ten of one patient were shown, with how they were predicted."""
    labels, groups = [0] * 10 + [1] * 10, [*map(str, range(10)), *(["one"] * 10)]
    right = measured(np.eye(2)[labels], labels, groups)
    wrong = measured(np.eye(2)[[0] * 20], labels, groups)
    assert right == wrong


def test_11_no_bin_of_calibration_is_of_one_patient():
    """Weights that are sure of one patient only made a bin of it: was it recognised?"""
    labels = np.arange(20) % 2
    groups = [str(max(image - 4, 0)) for image in range(20)]  # the first has five images
    probabilities = np.array([[0.95, 0.05]] * 5 + [[0.6, 0.4]] * 15)
    found = json.loads(measured(probabilities, labels, groups))
    assert [each["count"] for each in found["calibration"]] == [20]


# --- All that leaves a hospital ------------------------------------------------------------------


def everything(site, bias):
    """What a coordinator gets of a site without training: its capabilities, and two evaluations."""
    study = site.study
    said = capabilities(site.session, Request("query.capabilities", study, 0, {}, {}))
    crafted = {"bias": np.array(bias)}  # before calibration there are none, or it is refused
    found = [site.asked(EVALUATION, number, arrays) for number, arrays in enumerate([{}, crafted])]
    return json.dumps([said.details, *([each.examples, each.details] for each in found)])


@pytest.mark.parametrize("bias", [[50.0, -50.0], [-50.0, 50.0], [0.0, 0.0]])
def test_11_nothing_that_leaves_tells_how_many_are_held_out_of_a_small_class(hospital, bias):
    """The announced test images, the examples of the answer and n told it too."""
    same = [hospital("federation.min_count=4", without=tuple(SQUARES[few:])) for few in (1, 2, 3)]
    for site in same[1:]:
        for image in same[0].site_file.parent.glob("*.png"):
            shutil.copy(image, site.site_file.parent)
        shutil.rmtree(site.session.state)  # drawn with the images that are there now
        site.session = Session(site.session.site, site.study)
    assert len({everything(site, bias) for site in same}) == 1


@pytest.mark.parametrize("classes", [("round", "square"), ("square", "round")])
def test_11_shots_of_a_small_class_are_not_what_is_left_of_their_total(hospital, classes):
    """Shots less those that were shown gave those that were hidden; the shortfall named the class.

    Of one total, five here, all sites with a small class say the same.
    """
    train = {"round": ["p0", "p2", "p4", "p6"], "square": ["p1", "p3", "p5", "p7"]}
    seen = set()
    for large in (3, 4):
        left_out = train[classes[0]][large:] + train[classes[1]][5 - large :]
        site = hospital("alignment.shots=4", without=tuple(left_out))
        said = site.session.capabilities()
        assert said["labelled"] == 5
        assert set(said["classes"].values()) == {None} and said["shortfall"] == []
        assert not [note for note in said["notes"] if "round" in note or "square" in note]
        seen.add(json.dumps(said))
    assert len(seen) == 1
