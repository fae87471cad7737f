"""Whole small federations in one process."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hica.study import Study
from hica_client.app import app, forget_sessions
from hica_server.app import Watcher, make_server_app
from hica_server.publication import make_bank, publish
from hica_simulations.grid import run_in_process


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., dict]:
    """Runs or resumes a study over sites (paths of `site.toml`) and returns `result.json`.

    Every run starts as a new process would: nothing is left in memory of the one before.
    """

    def federate(
        study: Study,
        sites: Sequence[Path],
        out: str = "run",
        watcher: Watcher | None = None,
        engine: Callable[..., None] = run_in_process,
    ) -> dict:
        forget_sessions()

        def start() -> None:
            publish(
                study, tmp_path / out, tmp_path, lambda study, dim: make_bank(study, dim, tmp_path)
            )

        server_app = make_server_app(study, tmp_path / out, start, watcher)
        engine(server_app, app, [{"site": str(site)} for site in sites])
        return json.loads((tmp_path / out / "result.json").read_text())

    return federate


@pytest.fixture
def arrays_of(tmp_path: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """The arrays of a run's `model.safetensors`."""
    return lambda out: load_file(tmp_path / out / "model.safetensors")
