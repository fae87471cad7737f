"""B. What was promised is enforced: ε of the study, the patient as unit, noise nobody can draw."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hica.cohort.private_draw import rounded
from hica.cohort.roles import assign_roles
from hica.errors import BudgetError, ConfigurationError, MessageError
from hica.images.manifest import Record
from hica.privacy.accountant import epsilon
from hica.privacy.noise import GRID
from hica.privacy.statistics import SENSITIVITY
from hica.steps.alignment import ALIGNMENT
from hica.steps.arrays import COUNT_SCALE
from hica.steps.centre import CENTRE
from hica.steps.prototypes import PROTOTYPES
from hica_client.federation_checks import check_noise
from hica_client.ledger import spendings, verify

from .conftest import PRIVATE, WIDTH

SHORT = (*PRIVATE, "pretraining.rounds=0")


def spent(hospital):
    entries = verify(hospital.session.site.ledger)
    return epsilon([each.charge for each in spendings(entries)], 1e-3)


def test_3_no_more_than_its_own_epsilon_is_spent_on_a_study(hospital):
    """A study of ε = 1 got forty answers and spent 7.97, as only the site's own limit counted."""
    site = hospital(*SHORT)
    answered = 0
    for number, step in itertools.product(range(40), (CENTRE, PROTOTYPES, ALIGNMENT)):
        factor = np.float32(1 + number / 100)
        bank = site.state().shared["bank.classes"] * factor
        try:
            site.asked(step, **{"bank.classes": bank})
            answered += 1
        except (BudgetError, MessageError):
            pass
    assert answered == 3 and spent(site) <= 1.0


def test_3_where_all_answers_were_lost_the_ledger_still_holds_the_study_to_its_epsilon(hospital):
    site = hospital(*SHORT)
    answers = site.session.answers
    with pytest.raises(BudgetError, match=r"beyond the privacy\.epsilon = 1 that was approved"):
        for _ in range(40):
            site.asked(CENTRE)
            for file in answers.folder.iterdir():
                file.unlink()
    assert spent(site) <= 1.0


def public(roles):
    """Rounded numbers of patients, in all and of each class: rates and noise follow from them."""
    labels = ("round", "square")
    every = [{r.group for r in roles.train}]
    every += [{r.group for r in roles.train if r.label == label} for label in labels]
    return [rounded(len(patients)) for patients in every]


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=40),
    st.integers(1, 25),
    st.integers(1, 12),
    st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_4_one_patient_changes_no_sum_by_more_than_is_declared(
    toy_study, images, many, shots, both_classes
):
    """A patient with twenty images pushed ten others out: 8.8 times what the noise is made for."""
    study = toy_study(*PRIVATE, f"alignment.shots={shots}", f"pretraining.max_images={2 * shots}")

    def roles(with_x):
        patients = [(f"q{n}", count, n) for n, count in enumerate(images)]
        records = [
            Record(
                Path(f"{name}-{i}.png"),
                label=("round", "square")[(n + (i if both_classes else 0)) % 2],
                group=name,
            )
            for name, count, n in patients + ([("x", many, 0)] if with_x else [])
            for i in range(count)
        ]
        return assign_roles("north", records, "manifest.csv", study, 0.3, {})

    without, with_x = roles(False), roles(True)
    if (without.shots_told, without.pool_told) != (with_x.shots_told, with_x.pool_told):
        return  # the numbers that are told count as public
    if public(without) != public(with_x):
        return
    change = shots_sum(with_x) - shots_sum(without)
    assert np.linalg.norm(change) <= SENSITIVITY + 1e-9
    kept = [{row.name for row in each.pool if row.group != "x"} for each in (without, with_x)]
    assert kept[0] == kept[1]
    tested = [{row.name for row in each.test if row.group != "x"} for each in (without, with_x)]
    assert tested[0] == tested[1]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=40),
    st.lists(st.sampled_from(["round", "square", None]), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.3, 0.5, 0.9]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_4_one_patient_more_changes_the_role_of_no_other(toy_study, patients, images_of_x, held):
    """Whoever is on the training side has moved a sum; so nobody may be moved there by another."""
    study = toy_study(*PRIVATE, "federation.min_count=1", "alignment.shots=3")
    labels = ("round", "square", None, "round")

    def roles(with_x):
        others = [
            (f"q{n}", [labels[(first + i) % 4] for i in range(count)])
            for n, (count, first) in enumerate(patients)
        ]
        records = [
            Record(Path(f"{name}-{i}.png"), label=label, group=name)
            for name, images in others + ([("x", images_of_x)] if with_x else [])
            for i, label in enumerate(images)
        ]
        return assign_roles("north", records, "manifest.csv", study, held, {})

    one, other = roles(False), roles(True)
    assert [others_of(one.train), others_of(one.test)] == [
        others_of(other.train),
        others_of(other.test),
    ]
    if numbers_told(one) == numbers_told(other):  # they count as public, and set the rates
        assert others_of(one.pool) == others_of(other.pool)
        assert others_of(one.shots) == others_of(other.shots)


def others_of(rows):
    return [row.name for row in rows if row.group != "x"]


def numbers_told(roles):
    """Of patients on the training side, in all and of each class; rounded."""
    labels = [{"round", "square", None}, {"round"}, {"square"}]
    return [rounded(len({r.group for r in roles.train if r.label in among})) for among in labels]


def shots_sum(roles):
    """Sums and counts of the shots by class, every image the same unit row."""
    found = np.zeros((2, 2))
    images = [row.group for row in roles.shots]
    for row in roles.shots:
        weight = 1 / images.count(row.group)
        found[("round", "square").index(row.label)] += weight, COUNT_SCALE * weight
    return found


@pytest.mark.parametrize("host", ["hospital-net.example", "192.0.2.7", "[2001:db8::7]"])
def test_5_noise_that_can_be_drawn_again_is_refused_in_a_deployment(hospital, host):
    """Who knows the seed takes the noise off; a simulation on one machine needs it."""
    site = hospital(*SHORT).session.site
    with pytest.raises(ConfigurationError, match=r'policy\.noise = "seeded".*noise = "secure"'):
        check_noise(site, kit_of(host))
    check_noise(site, kit_of("127.0.0.1"))


def kit_of(host):
    from hica.deployment.kit import Kit

    return Kit(
        site="north",
        address=f"{host}:9092",
        study_sha256="0" * 64,
        bundle_sha256="0" * 64,
        hica="1",
        flwr="1",
    )


@pytest.mark.parametrize("noise", ["secure", "seeded"])
@pytest.mark.parametrize("step", [CENTRE, PROTOTYPES])
def test_6_what_leaves_lies_on_a_grid(hospital, noise, step):
    """The low bits of a noisy float64 can give away what was under the noise."""
    site = hospital(*SHORT, policy=f'max_epsilon = 9.0\ndelta = 1e-3\nnoise = "{noise}"')
    reply = site.asked(step)
    multiplier = spendings(verify(site.session.site.ledger))[0].noise_multiplier
    moves = math.sqrt(2) if step is CENTRE else 1.0
    deviation = multiplier * moves * SENSITIVITY
    for name, finer in (("sums", 1.0), ("counts", 1 / COUNT_SCALE)):
        step_size = 2.0 ** math.floor(math.log2(deviation * finer * GRID))
        multiples = reply.arrays[name] / step_size
        np.testing.assert_array_equal(multiples, np.rint(multiples))
    assert reply.arrays["sums"].shape == (2, WIDTH)
