"""What the tests of attacks share: a hostile coordinator's view of one hospital, a start kit."""

import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.coordinator import CA, PUBLIC
from tests.unit.hica_server.conftest import FakeSite
from tests.unit.hica_server.secure_site import SecureSite

from hica.deployment import keys as key_files
from hica.deployment.bundle import BUNDLE_SHA256
from hica.deployment.kit import Kit, write_kit
from hica.errors import HicaError
from hica.steps.plan import plan
from hica.steps.state import Bank, State
from hica.steps.step import Step
from hica.study import Study
from hica.wire.messages import Reply, Request
from hica_client.app import answer, forget_sessions
from hica_client.session import Session
from hica_client.site import load_site

from .hostile_site import run_of

WIDTH = 128
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=1.0",
    "privacy.delta=1e-3",
    "calibration.rounds=0",
)


class Hospital:
    """A site with a budget, and whatever a coordinator may ask it."""

    def __init__(self, site_file: Path, study: Study) -> None:
        self.site_file, self.study = site_file, study
        self.session = Session(load_site(site_file), study)

    def state(self, **weights: np.ndarray) -> State:
        """The state a run starts from, some of its weights exchanged."""
        model = self.session.pipeline.tower.trainable()
        rows = np.random.default_rng(0).normal(size=(6, WIDTH)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        shared = {f"tower.{name}": v.detach().numpy().copy() for name, v in model.items()}
        shared |= {"bank.classes": rows[:2], "bank.findings": rows[2:]}
        return State(
            shared=shared | weights,
            bank=Bank(rows[:2], rows[2:]),
            centre=np.zeros((2, WIDTH), np.float32),
            scale=np.ones((2, WIDTH), np.float32),
            bias=np.zeros(2),
            texts=Bank(rows[:2], rows[2:]),
            means=rows[:2],
            sites=2,
        )

    def asked(
        self, step: Step, number: int = 0, arrays: Mapping[str, Any] | None = None, **weights: Any
    ) -> Reply:
        """The answer to a turn of a step, with more arrays, or others; raises what is refused."""
        turn = [turn for turn in plan(self.study) if turn.step is step][number]
        content = {**self.state(**weights).arrays(), **(arrays or {})}
        return self.answered(
            Request(step.kind, self.study, turn.round, dict(turn.settings), content)
        )

    def answered(self, request: Request) -> Reply:
        """The answer to a request; raises what is refused."""
        return answer(self.session, request)

    def outcome(self, step: Step, **asked: Any) -> object:
        """What anyone can see of an answer without its noise: its form, or the kind of refusal."""
        try:
            reply = self.asked(step, **asked)
        except HicaError as error:
            return type(error).__name__
        forms = {name: (value.shape, str(value.dtype)) for name, value in reply.arrays.items()}
        finite = all(np.isfinite(value).all() for value in reply.arrays.values())
        return forms, finite, reply.examples, sorted(reply.details)


@pytest.fixture
def hospital(
    draw_site: Callable[..., Path], toy_study: Callable[..., Study]
) -> Callable[..., Hospital]:
    """`hospital(*overrides, without=[…], policy=…)`: some of its patients left out."""
    made = iter(range(100))

    def hospital(
        *overrides: str,
        without: tuple[str, ...] = (),
        more: str = "",
        policy: str = 'max_epsilon = 50.0\ndelta = 1e-3\nnoise = "seeded"',
    ) -> Hospital:
        path = draw_site(f"site-{next(made)}")
        manifest = path.parent / "manifest.csv"
        lines = [
            line for line in manifest.read_text().splitlines() if line.split(",")[2] not in without
        ]
        manifest.write_text("\n".join(lines) + "\n" + more)
        path.write_text(path.read_text() + f"[policy]\n{policy}\n")
        forget_sessions()
        return Hospital(path, toy_study(*overrides))

    return hospital


@pytest.fixture
def lay_kit() -> Callable[[Path, Study], None]:
    """`lay_kit(site_file, study)`: key and unpacked start kit of a site, as the coordinator's."""

    def lay(site_file: Path, study: Study) -> None:
        folder = site_file.parent
        key_files.generate(folder / "keys" / "site")
        kit = Kit(
            site=folder.name,
            address="coordinator.example:8443",
            study_sha256=study.sha256,
            bundle_sha256=BUNDLE_SHA256,
            hica=version("hica"),
            flwr=version("flwr"),
            coordinator_key=PUBLIC,
        )
        write_kit(folder / "kit.zip", kit, CA, study)
        with zipfile.ZipFile(folder / "kit.zip") as archive:
            archive.extractall(folder / "kit")

    return lay


@pytest.fixture
def keys(tmp_path):
    """A registered key for each of five sites."""
    made = {name: key_files.generate(tmp_path / name) for name in "abcde"}
    return {
        name: (key_files.read_private(tmp_path / name), public) for name, public in made.items()
    }


@pytest.fixture
def secure_run(keys):
    """`secure_run("abcd")`: a run over sites that only sums are seen of; and the sites."""

    def make(names, *overrides):
        public = {name: keys[name][1] for name in "abcde"}
        plain = [FakeSite(name, 0.01 * (1 + "abcde".index(name))) for name in names]
        sites = [SecureSite(site, keys[site.name][0], public) for site in plain]
        told = ["privacy.secure_aggregation=true", *overrides]
        return run_of(*sites, overrides=told, registered=public), sites

    return make
