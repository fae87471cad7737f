"""Whole studies with differential privacy: what leaves, what it costs, and what fails closed."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from hica.errors import FederationError
from hica.privacy.accountant import epsilon
from hica_client.ledger import spendings, verify
from hica_client.site import load_site
from hica_simulations.grid import run_in_process
from hica_simulations.site_files import introduce

NAMES = ["east", "north", "south"]
PRIVATE = ["privacy.epsilon=6.0", "privacy.delta=1e-3", "calibration.rounds=0"]
# Of a seed whose noise moves a centroid in every step of k-means: else the next step asks what was
# answered before, and costs nothing.
DP_SGD = [*PRIVATE, "privacy.mechanism=dp-sgd", "study.seed=1"]
PROTOTYPES = [*PRIVATE, "privacy.mechanism=prototypes", "pretraining.rounds=0"]


@pytest.fixture
def sites(draw_site):
    """Three sites that may spend up to ε = 9."""
    files = [draw_site(name) for name in NAMES]
    for path in files:
        allow(path, 9.0)
    return files


@pytest.fixture(scope="module")
def finished(tmp_path_factory, draw_site_below, federate_in, toy_study):
    """`finished(STUDY)`: folder, result and sites of a run within a budget, which are only read."""
    made = {}

    def finished(study):
        if str(study) not in made:
            root = tmp_path_factory.mktemp("private")
            sites = [draw_site_below(root, name) for name in NAMES]
            for path in sites:
                allow(path, 9.0)
            made[str(study)] = root, federate_in(root / "run", toy_study(*study), sites), sites
        return made[str(study)]

    return finished


def allow(path, max_epsilon, noise="seeded"):
    text = path.read_text().split("[policy]")[0]
    policy = f'[policy]\nmax_epsilon = {max_epsilon}\ndelta = 1e-3\nnoise = "{noise}"\n'
    path.write_text(text + policy)


def spent(path, delta=1e-3):
    entries = verify(load_site(path).ledger)
    return epsilon([each.charge for each in spendings(entries)], delta), entries


@pytest.mark.parametrize("study", [DP_SGD, PROTOTYPES], ids=["dp-sgd", "prototypes"])
def test_a_run_spends_its_budget_and_no_more_at_every_site(finished, study):
    root, result, sites = finished(study)
    assert all(entry["participants"] == NAMES for entry in result["rounds"])
    arrays = load_file(root / "run" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in arrays.values())
    for path in sites:
        total, entries = spent(path)
        assert 5.9 < total <= 6.0
        assert {entry["holds"] for entry in entries} == {"everyone"}
        assert {entry["unit"] for entry in entries} == {"patient"}


def test_every_answer_that_depends_on_patients_is_in_the_ledger(finished):
    _, result, sites = finished(DP_SGD)
    stages = [entry["stage"] for entry in result["rounds"]]
    free = {"capabilities", "evaluation", "result"}
    charged = [stage for stage in stages if stage not in free]
    charged.remove("clusters")  # the last request of k-means asks for nothing
    _, entries = spent(sites[0])
    kinds = {
        "centre": "train.moments",
        "clusters": "train.clusters",
        "pretraining": "train.pretrain",
        "prototypes": "train.prototypes",
        "alignment": "train.align",
    }
    assert [entry["kind"] for entry in entries] == [kinds[stage] for stage in charged]
    losses = [entry["loss"] for entry in result["rounds"]]
    assert losses == [None] * len(losses)


def test_prototypes_train_nothing(finished):
    _, result, sites = finished(PROTOTYPES)
    stages = [entry["stage"] for entry in result["rounds"]]
    assert stages == [
        "capabilities",
        "evaluation",
        "prototypes",
        "evaluation",
        "result",
    ]
    _, entries = spent(sites[0])
    assert len(entries) == 1


def test_seeded_noise_gives_the_same_run_again_and_the_system_s_never_does(
    federate, sites, toy_study, arrays_of
):
    study = toy_study(*PROTOTYPES)
    federate(study, sites, "one")
    for noise, out in (("seeded", "other"), ("secure", "third")):
        for path in sites:  # what the study may spend is spent: as a site that never saw it
            shutil.rmtree(path.parent / "state")
            allow(path, 30.0, noise=noise)
        federate(study, sites, out)
    name = "bank.classes"
    assert np.array_equal(arrays_of("one")[name], arrays_of("other")[name])
    assert not np.isin(arrays_of("one")[name], arrays_of("third")[name]).any()
    _, entries = spent(sites[0])
    assert [entry["noise"] for entry in entries] == ["secure"]


def test_a_site_whose_budget_is_spent_refuses_and_the_run_stops_and_says_so(
    federate, sites, toy_study
):
    allow(sites[1], 4.0)
    with pytest.raises(FederationError, match=r"north: .*beyond policy.max_epsilon = 4"):
        federate(toy_study(*DP_SGD, "federation.quorum=3"), sites)
    total, _ = spent(sites[1])
    assert total <= 4.0


def test_a_site_that_has_decided_on_no_budget_answers_no_private_study(federate, sites, toy_study):
    sites[1].write_text(sites[1].read_text().split("[policy]")[0])
    with pytest.raises(FederationError, match=r"north: .*policy.max_epsilon: is not set"):
        federate(toy_study(*DP_SGD, "federation.quorum=3"), sites)
    assert not load_site(sites[1]).ledger.exists()


def test_what_was_spent_in_one_study_is_gone_for_the_next(federate, sites, toy_study):
    federate(toy_study(*PROTOTYPES, "federation.quorum=3"), sites, "first")
    with pytest.raises(FederationError, match=r"bring ε from"):
        federate(toy_study(*PROTOTYPES, "federation.quorum=3", "study.seed=1"), sites, "second")


def test_a_site_restarted_in_the_middle_stays_private(federate, sites, toy_study):
    """Every message finds a client that has just been started."""
    from hica_client.app import forget_sessions

    def forgetful(server_app, client_app, nodes):
        def restarted(message, context):
            forget_sessions()
            return client_app(message, context)

        run_in_process(server_app, restarted, nodes)

    federate(toy_study(*DP_SGD), sites, engine=forgetful)
    total, _ = spent(sites[0])
    assert 5.9 < total <= 6.0


def test_in_a_secure_sum_each_site_may_add_a_share_of_the_noise(
    federate, sites, toy_study, arrays_of
):
    introduce(sites, NAMES)
    secure = ["privacy.secure_aggregation=true", "privacy.noise=distributed"]
    result = federate(toy_study(*PROTOTYPES, *secure, "federation.quorum=3"), sites)
    assert result["rounds"][2]["participants"] == NAMES
    total, entries = spent(sites[0])
    assert 5.9 < total <= 6.0
    assert entries[0]["holds"] == "the coordinator, of the sum over 3 sites or more"


def test_updates_are_private_by_themselves_in_a_secure_sum_too(federate, sites, toy_study):
    introduce(sites, NAMES)
    secure = ["privacy.secure_aggregation=true", "privacy.noise=distributed"]
    federate(toy_study(*DP_SGD, *secure, "federation.quorum=3"), sites)
    _, entries = spent(sites[0])
    for entry in entries:
        trained = entry["kind"] in ("train.pretrain", "train.align")
        assert (entry["holds"] == "everyone") == trained


def test_the_ledger_is_charged_before_an_answer_leaves(federate, sites, toy_study):
    """When the answer is handed over, its charge is on disk."""
    seen = []

    def watching(server_app, client_app, nodes):
        def answer(message, context):
            path = load_site(sites[0]).ledger
            before = len(path.read_text().splitlines()) if path.exists() else 0
            reply = client_app(message, context)
            if context.node_id == 1 and message.metadata.message_type == "train.prototypes":
                lines = path.read_text().splitlines()
                seen.append((len(lines) - before, json.loads(lines[-1])["kind"]))
            return reply

        run_in_process(server_app, answer, nodes)

    federate(toy_study(*PROTOTYPES), sites, engine=watching)
    assert seen == [(1, "train.prototypes")]
