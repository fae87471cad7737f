"""A new step is one file and one line: all else follows from what it declares."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tests.coordinator import KEY, signed

from hica.deployment.kit import roster_sha256
from hica.errors import FederationError
from hica.privacy.accountant import epsilon
from hica.steps import plan as plans
from hica.steps.arrays import counts, sums
from hica.steps.step import Answer, Rows, Stage, Statistic, Turn
from hica_client.app import make_app
from hica_client.approval import approve
from hica_client.audit import verify as verify_audit
from hica_client.consent import show
from hica_client.guard import Guard
from hica_client.ledger import spendings
from hica_client.ledger import verify as verify_ledger
from hica_client.policy import conflicts
from hica_client.site import PolicySection, load_site
from hica_simulations.grid import run_in_process
from hica_simulations.run import introduce

NAMES = ["east", "north", "south"]


class Spread(Statistic):
    """How far embeddings lie from zero; what a contributor would put into a file."""

    name = "spread"
    kind = "train.spread"
    role = "unlabelled"
    leaves = "sum of the absolute features of your training images"

    def turns(self, study):
        yield Turn(self, (Stage.CALIBRATION, 99), 7, self.name)

    def estimates(self, study):
        return ("bias",)

    def answers(self, study):
        largest = float(self.most_images(study))
        return sums((1, "width"), largest, 1.0), counts(1, largest, 1.0)

    def answer(self, data, model, request):
        rows = np.abs(data.embedded("unlabelled", model).images.double().numpy())
        arrays = {"sums": rows.sum(axis=0, keepdims=True), "counts": np.array([float(len(rows))])}
        return Answer(arrays, len(rows))

    def rows(self, data, model, request):
        rows = np.abs(data.embedded("unlabelled", model).images.double().numpy())
        return Rows(rows, np.zeros(len(rows), np.int64), np.arange(len(rows)), len(rows))

    def combine(self, state, received):
        mean = received.arrays["sums"].sum() / received.arrays["counts"][0]
        return replace(state, bias=state.bias + mean * np.arange(len(state.bias)))


@pytest.fixture(autouse=True)
def spread(monkeypatch):
    step = Spread()
    monkeypatch.setattr(plans, "STEPS", [*plans.STEPS, step])  # the one line
    return step


@pytest.fixture
def sites(draw_site):
    """Three sites that may spend up to ε = 9 and know each other's keys."""
    files = [draw_site(name) for name in NAMES]
    for path in files:
        policy = '[policy]\nmin_count = 3\nmax_epsilon = 9.0\ndelta = 1e-3\nnoise = "seeded"\n'
        path.write_text(path.read_text() + policy)
    introduce(files, NAMES)
    return files


def guarded(study):
    """An engine whose sites stand behind the guard, and have approved the study."""

    def engine(server_app, _, nodes):
        app, run_config = make_app(), {"study": study.sha256}

        def answer(message, context):
            site = load_site(Path(context.node_config["site"]))
            return Guard(site, KEY.public_key()).answer(signed(message), context, app)

        for node in nodes:
            site = load_site(Path(node["site"]))
            keys = roster_sha256(site.federation.kit) if study.privacy.secure_aggregation else None
            approve(site, study, "dr-grey", datetime(2026, 3, 1, tzinfo=UTC), keys)
        run_in_process(server_app, answer, nodes, run_config)

    return engine


def test_it_is_shown_before_it_is_approved_and_may_be_forbidden(toy_study):
    shown = io.StringIO()
    show(toy_study(), Console(file=shown, width=200))
    assert "train.spread" in shown.getvalue()
    assert "sum of the absolute features of your training images" in shown.getvalue()
    kinds = tuple(kind for kind in plans.all_kinds() if kind != "train.spread")
    (found,) = conflicts(PolicySection(min_count=3, kinds=kinds), toy_study())
    assert "the study needs train.spread, which policy.kinds does not list" in found


def test_it_is_combined_reported_and_audited(federate, sites, toy_study, arrays_of):
    study = toy_study("calibration.rounds=0")
    result = federate(study, sites, engine=guarded(study))
    assert [entry["stage"] for entry in result["rounds"]].count("spread") == 1
    assert arrays_of("run")["bias"][1] > 0
    events = [event for event in verify_audit(load_site(sites[0]).audit_log) if event["kind"]]
    (event,) = [event for event in events if event["kind"] == "train.spread"]
    assert event["decision"] == "sent"
    assert set(event["arrays"]) == {"sums", "counts"}


def test_it_is_charged_and_the_budget_still_holds(federate, sites, toy_study):
    study = toy_study(
        "privacy.mechanism=dp-sgd",
        "privacy.epsilon=6.0",
        "privacy.delta=1e-3",
        "calibration.rounds=0",
    )
    federate(study, sites, engine=guarded(study))
    entries = verify_ledger(load_site(sites[0]).ledger)
    assert [entry["kind"] for entry in entries].count("train.spread") == 1
    assert 5.9 < epsilon([each.charge for each in spendings(entries)], 1e-3) <= 6.0


def test_it_is_masked_and_the_sum_is_the_same(federate, sites, toy_study, arrays_of):
    plain = toy_study("calibration.rounds=0", "federation.quorum=3", "pretraining.rounds=0")
    secure = toy_study(
        "calibration.rounds=0",
        "federation.quorum=3",
        "pretraining.rounds=0",
        "privacy.secure_aggregation=true",
    )
    federate(plain, sites, "plain", engine=guarded(plain))
    federate(secure, sites, "secure", engine=guarded(secure))
    np.testing.assert_allclose(
        arrays_of("secure")["bias"], arrays_of("plain")["bias"], rtol=1e-5, atol=0
    )
    events = verify_audit(load_site(sites[0]).audit_log)
    masked = [e for e in events if e["kind"] == "train.spread" and e["study"] == secure.sha256]
    assert set(masked[0]["arrays"]) == {"sums", "counts", "examples", "loss"}
    assert masked[0]["arrays"]["sums"][1] == "uint64"


def test_a_run_killed_at_it_goes_on_to_the_same_bits(federate, sites, toy_study, arrays_of):
    study = toy_study("calibration.rounds=0", "pretraining.rounds=0")
    federate(study, sites, "whole", engine=guarded(study))

    def killed(server_app, client_app, nodes):
        def answer(message, context):
            if message.metadata.message_type == "train.spread":
                raise OSError("the network is gone")
            return client_app(message, context)

        run_in_process(server_app, answer, nodes)

    with pytest.raises(FederationError, match=r"train\.spread round 8"):
        federate(
            study, sites, "cut", engine=lambda server, _, nodes: killed(server, make_app(), nodes)
        )
    federate(study, sites, "cut", engine=guarded(study))
    for name, array in arrays_of("whole").items():
        np.testing.assert_array_equal(array, arrays_of("cut")[name])
