"""A. The form of an answer is a channel: a private request has one outcome, whoever is there."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hica.cohort.private_draw import rounded
from hica.errors import MessageError
from hica.steps.alignment import ALIGNMENT
from hica.steps.centre import CENTRE
from hica.steps.clusters import ASSIGN, LLOYD
from hica.steps.pretraining import PRETRAINING
from hica.steps.prototypes import PROTOTYPES

from .conftest import PRIVATE, WIDTH

# Patients p0, p2, p4, p6 show round masses, the others square ones. Nine shots of a class are
# more than there are: all are drawn, and one more or less is told to the coordinator to a quarter.
STUDY = (*PRIVATE, "alignment.shots=9", "alignment.rounds=1")
CENTROIDS = {"centroids": np.eye(WIDTH)[:3] * 0.5}


@pytest.fixture
def any_weights(monkeypatch):
    """Sites take whatever weights they are sent: what comes after must hold by itself."""
    monkeypatch.setattr("hica_client.app.check_sent", lambda *_: None)


def weights_of(scale):
    """Adapter weights so large that features overflow."""
    return {
        "tower.adapter.up.weight": np.full((WIDTH, 8), scale, np.float32),
        "tower.adapter.down.weight": np.full((8, WIDTH), scale, np.float32),
    }


@pytest.mark.parametrize("step", [CENTRE, PROTOTYPES, LLOYD])
@pytest.mark.parametrize("scale", [1e6, -1e6, 1e-30])
@pytest.mark.usefixtures("any_weights")
def test_1_features_that_overflow_give_the_answer_of_a_site_without_patients(hospital, step, scale):
    """NaN of one known patient made the reply be refused, and so told that it is there."""
    arrays = CENTROIDS if step is LLOYD else {}
    outcomes = [
        hospital(*STUDY, without=left_out).outcome(step, arrays=arrays, **weights_of(scale))
        for left_out in ((), ("p0",))
    ]
    (shapes, finite, *_), (others, also, *_) = outcomes
    assert shapes["sums"] == others["sums"] and finite is also is True


def test_1_weights_beyond_their_range_are_refused_before_an_image_is_touched(hospital, monkeypatch):
    site = hospital(*STUDY)
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match="at most 1e\\+06"):
        site.asked(CENTRE, **weights_of(1e30))


@pytest.mark.parametrize("step", [ASSIGN, LLOYD, PRETRAINING])
def test_2_a_private_study_has_as_many_centroids_as_it_says(hospital, monkeypatch, step):
    """One centroid less after `assign` was an index out of range for one patient only."""
    site = hospital(*STUDY)
    monkeypatch.setattr(site.session, "examples", None)
    with pytest.raises(MessageError, match="'centroids' has shape"):
        site.asked(step, arrays={"centroids": CENTROIDS["centroids"][:2]})


@pytest.mark.parametrize("step", [CENTRE, PROTOTYPES, ALIGNMENT])
def test_an_image_that_cannot_be_read_does_not_show(hospital, step):
    """A refusal would tell that the patient with that image is there."""
    broken = hospital(*STUDY)
    whole = hospital(*STUDY)
    (broken.site_file.parent / "0.png").write_bytes(b"no image")
    assert broken.outcome(step) == whole.outcome(step)


def test_a_site_of_which_no_patient_is_drawn_answers_like_any_other(hospital):
    everyone = tuple(f"p{number}" for number in range(8))
    site = hospital(*STUDY, without=everyone[1:])
    image = Image.new("L", (48, 48))
    for name in ("0.png", "0-mask.png"):
        image.save(site.site_file.parent / name)
    (site.site_file.parent / "0.png").write_bytes(b"no image")
    forms, finite, examples, _ = site.outcome(PROTOTYPES)
    assert forms["sums"] == ((2, WIDTH), "float64") and finite and examples == 1


hostile = st.sampled_from([0.0, -0.0, 1e-45, 1e-12, 1.0, -1.0, 1e6, -1e6])


@given(
    st.sampled_from([CENTRE, PROTOTYPES, LLOYD, ALIGNMENT]),
    st.lists(hostile, min_size=8, max_size=8),
    st.sampled_from([f"p{number}" for number in range(8)]),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("any_weights")
def test_hostile_arrays_on_neighbouring_sites_give_the_same_kind_of_outcome(
    hospital, step, numbers, patient
):
    """Whatever is sent: a reply of the same form, or the same refusal, with and without anyone."""
    rows = np.tile(np.array(numbers, np.float32), (WIDTH, 1))
    asked = {"tower.adapter.up.weight": rows, "tower.adapter.down.weight": rows.T.copy()}
    arrays = {"scale": np.full((2, WIDTH), max(abs(numbers[0]) % 4096, 1e-12), np.float32)}
    arrays |= {"centroids": np.full((3, WIDTH), numbers[1] % 1.0)} if step is LLOYD else {}
    outcomes = [
        hospital(*STUDY, without=left_out).outcome(step, arrays=arrays, **asked)
        for left_out in ((), (patient,))
    ]
    if isinstance(outcomes[0], str):
        assert outcomes[0] == outcomes[1]
    else:
        (forms, finite, told, details), (others, also, fewer, same) = outcomes
        assert (forms, details) == (others, same) and finite and also
        assert fewer in (told, told - 1) and rounded(8) == 8  # which counts as public
