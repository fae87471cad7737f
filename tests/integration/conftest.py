"""Whole small federations in one process."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.conftest import TOY_STUDY

from hica.study import Study, apply_overrides, validated
from hica_client.app import app, forget_sessions
from hica_server.app import Watcher, make_server_app
from hica_server.publication import make_bank, publish
from hica_simulations.grid import run_in_process


@pytest.fixture(scope="session")
def toy_study() -> Callable[..., Study]:
    """As everywhere, but without the sites' own models, which take as long as all the rest.

    They come after the last round, and have tests of their own (`test_personal.py`).
    """
    changes = ("personal.epochs=0",)
    return lambda *more: validated(Study, apply_overrides(TOY_STUDY, [*changes, *more]), "toy")


@pytest.fixture(scope="session")
def federate_in() -> Callable[..., dict]:
    """Runs or resumes a study over sites (paths of `site.toml`) in a folder; its `result.json`.

    Every run starts as a new process would: nothing is left in memory of the one before. Weights
    lie in the folder above.
    """

    def federate(
        folder: Path,
        study: Study,
        sites: Sequence[Path],
        watcher: Watcher | None = None,
        engine: Callable[..., None] = run_in_process,
    ) -> dict:
        forget_sessions()
        if not folder.exists():  # sites answer every turn of a study once: in a new run, anew
            for answers in [each for site in sites for each in site.parent.glob("state/*/answers")]:
                shutil.rmtree(answers)
        weights = folder.parent

        def start() -> None:
            publish(study, folder, weights, lambda study, dim: make_bank(study, dim, weights))

        server_app = make_server_app(study, folder, start, watcher)
        engine(server_app, app, [{"site": str(site)} for site in sites])
        return json.loads((folder / "result.json").read_text())

    return federate


@pytest.fixture
def federate(tmp_path: Path, federate_in: Callable[..., dict]) -> Callable[..., dict]:
    """Runs or resumes a study over sites in `tmp_path/OUT`; its `result.json`."""

    def federate(study: Study, sites: Sequence[Path], out: str = "run", **options: object) -> dict:
        return federate_in(tmp_path / out, study, sites, **options)

    return federate


@pytest.fixture
def arrays_of(tmp_path: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """The arrays of a run's `model.safetensors`."""
    return lambda out: load_file(tmp_path / out / "model.safetensors")


class Run:
    """A finished run, which is only read."""

    def __init__(self, folder: Path, result: dict) -> None:
        self.result = result
        self.arrays = load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def share_run(
    tmp_path_factory: pytest.TempPathFactory,
    draw_site_below: Callable[..., Path],
    federate_in: Callable[..., dict],
    toy_study: Callable[..., Study],
) -> Callable[..., Run]:
    """`share_run(SITES, *overrides)`: a run of the toy study, made once for all tests of a file."""
    made: dict[tuple[tuple[str, ...], tuple[str, ...]], Run] = {}

    def share(names: Sequence[str], *overrides: str) -> Run:
        key = tuple(names), overrides
        if key not in made:
            root = tmp_path_factory.mktemp("shared")
            sites = [draw_site_below(root, name) for name in names]
            made[key] = Run(root / "run", federate_in(root / "run", toy_study(*overrides), sites))
            forget_sessions()
        return made[key]

    return share


@pytest.fixture(scope="session")
def finished(
    federate_in: Callable[..., dict],
    toy_study: Callable[..., Study],
    draw_site_below: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Study]:
    """`site.toml` of a site that a study is over at, and the study."""
    root = tmp_path_factory.mktemp("finished")
    personal = ("personal.epochs=1", "personal.weight=0.4")
    study = toy_study(*personal, "pretraining.rounds=0", "alignment.rounds=1")
    sites = [draw_site_below(root, name, images=60) for name in ("north", "south")]
    federate_in(root / "run", study, sites)
    forget_sessions()
    return sites[0], study


@pytest.fixture
def kit(finished: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch) -> Path:
    """That `site.toml`, as if it had the study in a start kit."""
    monkeypatch.setattr("hica_client.prediction.models.read_kit", lambda _: (None, finished[1]))
    return finished[0]
