"""`hica-sim federation`: from `provision` to the report by real processes, and what is left."""

import json

import pytest
import torch

from hica.steps.plan import all_kinds
from hica.wire.messages import SECURE_SUM
from hica_client.audit import verify
from hica_client.site import load_site
from hica_simulations.cli import main
from hica_simulations.deployment import Deployment

pytestmark = pytest.mark.deployment

EVERY_KIND = (
    "pretraining.rounds=1",
    "pretraining.clusters=3",
    "pretraining.lloyd_rounds=1",
    "alignment.rounds=1",
    "alignment.bank_start=prototypes",
    "alignment.centring=global",
    "calibration.rounds=1",
)


@pytest.fixture
def hica_sim_federation(tmp_path, scenario_file, cache):
    """Runs the command; returns its exit code."""

    def run(*options: str) -> int:
        places = [f"--out={tmp_path / 'out'}", f"--data={tmp_path}", f"--cache={cache}"]
        changes = [f"--set={change}" for change in EVERY_KIND]
        with pytest.raises(SystemExit) as end:
            main(["federation", str(scenario_file), *places, "--device=cpu", *changes, *options])
        return end.value.code

    yield run
    torch.use_deterministic_algorithms(False)


def test_real_processes_give_the_metrics_of_the_simulation(
    hica_sim_federation, tmp_path, capsys, monkeypatch
):
    assert hica_sim_federation("--json") == 0
    compared = json.loads(capsys.readouterr().out)
    rounds, sites = compared["deployed"]["rounds"], compared["deployed"]["per_site"]
    assert compared["difference"] <= 1e-6
    assert list(sites) == ["north", "south"]
    assert (tmp_path / "out" / "coordinator" / "run" / "report.html").exists()
    for name in sites:  # the site's own account of what left it
        log = verify(load_site(tmp_path / "out" / "sites" / name / "site.toml").audit_log)
        assert [entry["decision"] for entry in log] == ["sent"] * len(rounds)
        assert {entry["kind"] for entry in log} == set(all_kinds()) - set(SECURE_SUM)

    # Where all of it is done, the same command compares, and says so if the two do not agree.
    monkeypatch.setattr(Deployment, "start", lambda *_: None)
    monkeypatch.setattr(Deployment, "wait", lambda *_: None)
    assert hica_sim_federation() == 0
    assert "largest difference of a metric: 0.0e+00" in capsys.readouterr().out
    result = tmp_path / "out" / "simulation" / "result.json"
    simulated = json.loads(result.read_text())
    simulated["final"]["accuracy"]["value"] += 0.125
    result.write_text(json.dumps(simulated))
    assert hica_sim_federation() == 9
    assert "largest difference of a metric: 1.2e-01" in capsys.readouterr().out


@pytest.mark.matrix
def test_processes_that_are_started_again_find_all_of_it_done(hica_sim_federation, tmp_path):
    run = tmp_path / "out" / "coordinator" / "run"
    assert hica_sim_federation() == 0
    done = (run / "result.json").read_bytes(), (run / "state.safetensors").stat().st_mtime_ns
    assert hica_sim_federation() == 0
    assert done == (
        (run / "result.json").read_bytes(),
        (run / "state.safetensors").stat().st_mtime_ns,
    )
