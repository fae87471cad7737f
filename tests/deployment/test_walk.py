"""The whole way of the guides, by their commands: from two `init` to the result at every hospital.

On real images where `../shared/data` is there, else on drawn ones.
"""

import json
import re
import subprocess
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import tomli_w

from hica.deployment.supervision import free_port
from hica_server.settings import Folder
from hica_simulations.deployment import environment, program, started
from hica_simulations.partitions import build_sites
from hica_simulations.scenario import load_scenario

pytestmark = [pytest.mark.deployment, pytest.mark.matrix]

HERE = Path(__file__).parents[2]
DATA = HERE.parent / "shared" / "data"
STUDIES = HERE / "simulations" / "studies"
REAL = (DATA / "busi").is_dir()
ROUNDS = 10
CHANGES = ("pretraining.rounds=0", f"alignment.rounds={ROUNDS}", "federation.quorum=3")


class Walk:
    """A coordinator and three hospitals, each with a folder of its own."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.root = out / "my-study"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def say(self, name: str, *arguments: object) -> str:
        """Run a command to its end, which must be a good one; what it printed."""
        done = subprocess.run(
            [program(name), *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{name} {arguments}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, who: str, name: str, *arguments: object) -> None:
        """Start a command that runs until the study is over."""
        command = [program(name), *map(str, arguments)]
        self.processes[who] = started(command, self.log(who), environment())

    def log(self, who: str) -> Path:
        return self.out / "logs" / f"{who}.log"

    def wait_for(self, there: Path) -> None:
        while not there.exists():
            self.check_alive()
            time.sleep(0.1)

    def wait_for_end(self) -> None:
        """Wait until every command has ended by itself; nobody stops any."""
        while any(process.poll() is None for process in self.processes.values()):
            self.check_alive()
            time.sleep(0.2)
        self.check_alive()

    def check_alive(self) -> None:
        """No command has ended in another way than a good one."""
        for who, process in self.processes.items():
            said = self.log(who).read_text(errors="replace")[-3000:]
            assert process.poll() in (None, 0), f"{who}:\n{said}"


@pytest.fixture
def walk(tmp_path):
    walk = Walk(tmp_path)
    yield walk
    for process in walk.processes.values():
        process.kill()
        process.wait()


@pytest.fixture
def scenario(tmp_path):
    """Three hospitals: two with parts of BUSI and one with BrEaST, or three that draw theirs."""
    name = "breast_ultrasound.toml" if REAL else "phantoms.toml"
    table = tomllib.loads((STUDIES / name).read_text())
    sites = table["simulation"]["sites"]
    table["simulation"]["sites"] = [*sites[:2], sites[-1]]
    file = tmp_path / "scenario.toml"
    file.write_text(tomli_w.dumps(table))
    return load_scenario(file, list(CHANGES))


def edited(file: Path, **values: str) -> None:
    """Change settings in an annotated file, as a person would: each has one line there."""
    text = file.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key} = \S+", lambda _, k=key, v=value: f"{k} = {v}", text)
        assert count == 1, key
    file.write_text(text)


def test_from_init_to_the_result_at_every_hospital(walk, scenario, capsys):
    began = time.monotonic()
    folder, study = Folder(walk.root), scenario.study
    say = walk.say

    say("hica-server", "init", walk.root)
    folder.study.write_text(tomli_w.dumps(study.model_dump(mode="json", exclude_none=True)))
    edited(folder.settings, port=str(free_port()), folder=f'"{DATA}"', metrics="0")
    sha = json.loads(say("hica-server", "validate", folder.study, "--json"))["sha256"]
    assert sha == study.sha256

    sites = {}
    for made in build_sites(scenario, DATA, walk.out / "images", walk.out / "cache"):
        site = sites[made.name] = walk.out / made.name / "site.toml"
        say("hica-client", "init", site.parent)
        manifest, weights = f'"{made.manifest.resolve()}"', f'"{DATA}"'
        edited(site, name=f'"{made.name}"', manifest=manifest, weights=weights)
        edited(site, min_count=str(study.federation.min_count), use='"cpu"')
    kits = json.loads(say("hica-server", "provision", walk.root, *sites, "--json"))["kits"]
    for name, site in sites.items():
        with zipfile.ZipFile(kits[name]) as kit:
            kit.extractall(site.parent / "kit")
        key = json.loads(say("hica-client", "keygen", site, "--json"))
        enrol = ("enroll", walk.root, key["public_key"], "--name", name, "--json")
        enrolled = json.loads(say("hica-server", *enrol))
        assert enrolled["fingerprint"] == key["fingerprint"]

    walk.start("coordinator", "hica-server", "run", walk.root)
    walk.wait_for(folder.connected)
    for name, site in sites.items():
        checked = json.loads(say("hica-client", "check", site, "--json"))
        assert checked["enrolled"] is True and checked["problems"] == []
        say("hica-client", "approve", site, sha[:12], "--yes")
        assert "approved already" in say("hica-client", "approve", site, sha[:12], "--yes")
        walk.start(name, "hica-client", "run", site)
    walk.wait_for_end()

    overall = json.loads((folder.run / "result.json").read_bytes())
    for name, site in sites.items():
        over = f"the study {study.study.name} is over; your result: hica-client result {site}"
        assert over in walk.log(name).read_text()
        result = json.loads(say("hica-client", "result", site, "--json"))
        assert (result["rounds"], result["rounds_of"]) == (ROUNDS, ROUNDS)
        assert result["federated"]["n"] >= overall["per_site"][name]["n"]
        assert result["zero_shot"] is not None and Path(result["model"]).exists()
        assert "joining gave: accuracy" in say("hica-client", "result", site)
        assert "the chain is whole" in say("hica-client", "audit", site)
    with capsys.disabled():
        images = "BUSI and BrEaST" if REAL else "phantoms"
        print(f"\nfrom init to result on {images}: {time.monotonic() - began:.0f} s")
