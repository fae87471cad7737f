"""Whole studies under secure aggregation, beside the same ones without."""

import numpy as np
import pytest

from hica.errors import ConfigurationError, FederationError
from hica.steps.alignment import ALIGNMENT
from hica.steps.personal import OWN
from hica.wire.messages import Kind
from hica_client.session import Session
from hica_client.site import load_site
from hica_simulations.grid import run_in_process
from hica_simulations.site_files import introduce

NAMES = ["east", "north", "south", "west"]
SECURE = "privacy.secure_aggregation=true"
BOTH = ["pretraining.rounds=0", "federation.quorum=3"]


@pytest.fixture
def four_sites(draw_site):
    files = [draw_site(name) for name in NAMES]
    introduce(files, NAMES)
    return files


def dropping(node, kind, times=1):
    """An engine in which a node does not answer a kind, so often."""
    left = [times]

    def engine(server_app, client_app, nodes):
        def flaky(message, context):
            meant = context.node_id == node and message.metadata.message_type == kind
            if meant and left[0]:
                left[0] -= 1
                raise OSError("the network is gone")
            return client_app(message, context)

        run_in_process(server_app, flaky, nodes)

    return engine


def furthest(one, other):
    """Largest difference of a weight between two models."""
    assert one.keys() == other.keys()
    return max(np.abs(one[name].astype(float) - other[name]).max(initial=0) for name in one)


@pytest.mark.parametrize(("rule", "rounds"), [("mean", 4), ("adam", 0)])
def test_the_model_is_that_of_the_study_without_it(
    federate, four_sites, toy_study, arrays_of, rule, rounds
):
    both = [*BOTH, f"federation.aggregation={rule}", f"calibration.rounds={rounds}"]
    studies = [toy_study(*both, "personal.epochs=1", *more) for more in ((), (SECURE,))]
    plain = federate(studies[0], four_sites, "plain")
    secure = federate(studies[1], four_sites, "secure")
    assert furthest(arrays_of("plain"), arrays_of("secure")) < 2e-5
    for name in ("accuracy", "auroc"):
        assert secure["final"][name]["value"] == pytest.approx(plain["final"][name]["value"])
    for one, other in zip(plain["rounds"], secure["rounds"], strict=True):
        assert (one["stage"], one["participants"]) == (other["stage"], other["participants"])
        if one["stage"] == "alignment":
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
            assert (len(one["site_loss"]), other["site_loss"]) == (4, {})
    for path in four_sites:  # the class means that own models are weighed by came as a sum
        shares = [Session(load_site(path), study).kept(OWN)["share"][0] for study in studies]
        assert shares[1] == pytest.approx(shares[0], abs=1e-4)


def test_stage_1_runs_from_a_drawn_start(federate, four_sites, toy_study, arrays_of):
    result = federate(toy_study("federation.quorum=3", "calibration.rounds=0", SECURE), four_sites)
    stages = [entry["stage"] for entry in result["rounds"]]
    assert stages.count("clusters") == 3  # two of Lloyd, assign
    assert stages.count("pretraining") == 2
    assert all(entry["participants"] == NAMES for entry in result["rounds"])
    assert all(np.isfinite(array).all() for array in arrays_of("run").values())


@pytest.mark.parametrize("kind", [Kind.KEYS, Kind.SHARES, ALIGNMENT.kind, Kind.UNMASK])
def test_a_site_that_drops_out_is_left_out_of_that_round_alone(
    federate, four_sites, toy_study, arrays_of, kind
):
    study = toy_study(*BOTH, SECURE, "alignment.centring=none", "calibration.rounds=0")
    result = federate(study, four_sites, engine=dropping(4, kind))
    first = result["rounds"][2]  # after capabilities and zero-shot evaluation
    others = NAMES if kind == Kind.UNMASK else NAMES[:3]
    entries = [e for e in result["rounds"] if e["stage"] in ("prototypes", "alignment")]
    dropped = [entry for entry in entries if entry["participants"] == NAMES[:3]]
    assert len(dropped) == (0 if kind == Kind.UNMASK else 1)
    assert all("the network is gone" in str(entry["refused"]["west"]) for entry in dropped)
    if kind in (Kind.KEYS, Kind.SHARES):
        assert first["participants"] == others
    assert all(np.isfinite(array).all() for array in arrays_of("run").values())


def test_below_the_threshold_the_run_stops_and_goes_on_where_it_was(
    federate, four_sites, toy_study, arrays_of
):
    study = toy_study(*BOTH, SECURE, "privacy.threshold=1.0", "calibration.rounds=1")
    with pytest.raises(FederationError, match=r"train\.align round 1: no secure sum, and nothing"):
        federate(study, four_sites, engine=dropping(4, ALIGNMENT.kind))
    federate(study, four_sites)
    federate(study, four_sites, "uninterrupted")
    assert furthest(arrays_of("run"), arrays_of("uninterrupted")) == 0


def test_two_sites_are_too_few(federate, four_sites, toy_study):
    study = toy_study("federation.quorum=1", SECURE)
    with pytest.raises(FederationError, match=r"2 site\(s\) have unlabelled images, needed are 3"):
        federate(study, four_sites[:2])


def test_sites_without_each_others_keys_stop_the_run(federate, four_sites, toy_study):
    for file in four_sites:
        (file.parent / "kit" / "keys.json").unlink()
    with pytest.raises(FederationError, match="missing, and secure aggregation needs every site"):
        federate(toy_study(*BOTH, SECURE), four_sites)


def test_a_swapped_list_of_keys_at_one_site_stops_what_that_site_is_asked(
    federate, four_sites, toy_study
):
    """A coordinator that hands one site a list with its own key in another's place."""
    introduce([four_sites[0]], ["north"])  # east now knows its own key as north's, and no other
    study = toy_study(*BOTH, SECURE, "alignment.centring=none", "calibration.rounds=0")
    result = federate(study, four_sites)
    for entry in result["rounds"]:
        if entry["stage"] in ("prototypes", "alignment"):
            assert "'east' is not among the registered keys" in entry["refused"]["east"]
            assert entry["participants"] == NAMES[1:]


def test_rules_that_need_single_updates_are_refused_before_anything(toy_study):
    with pytest.raises(ConfigurationError, match="compares single updates"):
        toy_study(SECURE, "federation.aggregation=krum")
