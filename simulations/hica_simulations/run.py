"""One simulated study: sites made, federation run, baselines run on the same shots, report written.

out/
study.json  state.safetensors  model.safetensors  result.json  report.html  events/
sites/NAME/{site.toml, manifest.csv, state/}
baselines/{local_only/NAME, pooled}/  the same files
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hica.checkpoint import write_json
from hica.errors import ConfigurationError
from hica.metrics import SiteMetrics, combine
from hica.study import Study, apply_overrides, validated
from hica.text_bank import TextBank
from hica_client.app import app as client_app
from hica_client.app import forget_sessions
from hica_server.app import Watcher, make_bank, make_server_app
from hica_simulations.baselines.shots import shot_baselines
from hica_simulations.grid import run_in_process
from hica_simulations.partitions import SiteFolder, build_sites, pooled_folders
from hica_simulations.ray_engine import run_on_ray
from hica_simulations.scenario import Scenario

Engine = Literal["grid", "flower"]
Watching = Callable[[str], AbstractContextManager[Watcher]]
"""Makes the watcher of a named federation, open while that federation runs."""


@dataclass(frozen=True)
class Place:
    """Where a simulation finds and leaves its files, and what it computes with.

    Attributes:
        data: Folder of images, texts and weights.
        out: Run directory.
        cache: Decoded images and features, shared by all runs.
        device: `auto`, `cpu` or `cuda:N`.
        engine: `grid` (in this process) or `flower` (Flower's Ray engine).
    """

    data: Path
    out: Path
    cache: Path
    device: str = "auto"
    engine: Engine = "grid"


def silently(_: str) -> AbstractContextManager[Watcher]:
    """Watch nothing."""
    return nullcontext(Watcher())


def simulate(
    scenario: Scenario, place: Place, baselines: bool = True, watching: Watching = silently
) -> dict[str, Any]:
    """Run or resume a simulated study; returns its `result.json`.

    Args:
        scenario: Study and sites.
        place: Files and engine.
        baselines: Whether to run local-only, pooled and the probes on the same shots.
        watching: Told of progress.

    Raises:
        HicaError: Whatever stops the run; the same call resumes it.
    """
    study = scenario.study
    finished = finished_result(place.out, study, baselines)
    if finished is not None:
        return finished
    # One thread a site, as many sites at once as there are cores: faster than several threads on
    # one small site, and the result does not depend on the number of cores.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folders = build_sites(scenario, place.data, place.out, place.cache)
    runs = Federations(study, folders, place, watching)
    result = runs.federated()
    if baselines:
        sites = [write_site(folder, place) for folder in folders]
        result["baselines"] |= {
            **shot_baselines(study, sites),
            "local_only": runs.local_only(tested=result["per_site"]),
            "pooled": runs.pooled(),
        }
    write_json(place.out / "result.json", result)
    return result


def finished_result(out: Path, study: Study, baselines: bool) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do, else None.

    Raises:
        ConfigurationError: The folder holds a run of another study.
    """
    path = out / "result.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["study_sha256"] != study.sha256:
        raise ConfigurationError(
            f"{out}: holds a run of another study ({result['study_sha256'][:12]}, asked for "
            f"{study.sha256[:12]}). Use another --out, or delete that folder"
        )
    return result if not baselines or "pooled" in result["baselines"] else None


class Federations:
    """The federations of one simulation: all sites, each site alone, all images in one place."""

    def __init__(
        self, study: Study, folders: Sequence[SiteFolder], place: Place, watching: Watching
    ) -> None:
        self.study = study
        self.folders = folders
        self.place = place
        self.watching = watching
        self._banks: dict[int, TextBank] = {}

    def federated(self) -> dict[str, Any]:
        """The study itself; returns its `result.json`."""
        return self._run(self.study, self.folders, self.place.out, "federated")

    def local_only(self, tested: Collection[str]) -> dict[str, Any]:
        """The same training at each site alone on its own shots; mean over the sites' tests.

        Args:
            tested: Sites that were tested in the federation; the others have nothing to compare.
        """
        alone = _changed(self.study, "federation.quorum=1")
        per_site: dict[str, Any] = {}
        for folder in self.folders:
            if folder.labelled and folder.name in tested:
                out = self.place.out / "baselines" / "local_only" / folder.name
                result = self._run(alone, [folder], out, f"local only: {folder.name}")
                per_site |= result["per_site"]
        return self._combined(per_site)

    def pooled(self) -> dict[str, Any]:
        """The same training on all shots and images in one place; tested at the sites."""
        out = self.place.out / "baselines" / "pooled"
        shots = self.study.alignment.shots * len(self.folders)
        alone = _changed(self.study, "federation.quorum=1", f"alignment.shots={shots}")
        together = pooled_folders(self.folders, self.study, out)
        return self._combined(self._run(alone, together, out, "pooled")["per_site"])

    def _run(
        self, study: Study, folders: Sequence[SiteFolder], out: Path, name: str
    ) -> dict[str, Any]:
        """Run or resume one federation over site folders."""
        finished = finished_result(out, study, baselines=False)
        if finished is not None:
            return finished
        place = self.place
        nodes = [{"site": str(write_site(folder, place))} for folder in folders]
        with self.watching(name) as watcher:
            first = out == place.out  # baselines start from the same texts
            server_app = make_server_app(
                study, out, place.data, self._text_bank, watcher, zero_shot=first
            )
            if place.engine == "flower":
                run_on_ray(server_app, client_app, nodes, num_gpus=_gpu_share(place, len(nodes)))
            else:
                run_in_process(server_app, client_app, nodes, workers=os.cpu_count() or 1)
        forget_sessions()
        result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return result

    def _text_bank(self, study: Study, dim: int) -> TextBank:
        """The bank, made once: refining the text tower takes longer than a small federation."""
        if dim not in self._banks:
            self._banks[dim] = make_bank(study, dim, self.place.data)
        return self._banks[dim]

    def _combined(self, per_site: dict[str, Any]) -> dict[str, Any]:
        """Overall and per-site metrics of a baseline."""
        count = len(self.study.classes)
        metrics = [SiteMetrics.from_dict(table, count, site) for site, table in per_site.items()]
        return {**combine(metrics).to_dict(), "per_site": per_site}


def write_site(folder: SiteFolder, place: Place) -> Path:
    """Write the folder's `site.toml`, as a hospital would write its own; returns its path."""
    path = folder.manifest.parent / "site.toml"
    lines = [
        "[site]",
        f"name = {json.dumps(folder.name)}",
        "[data]",
        f"manifest = {json.dumps(str(folder.manifest.resolve()))}",
        f"weights = {json.dumps(str(place.data.resolve()))}",
        f"cache = {json.dumps(str(place.cache.resolve()))}",
        "[device]",
        f"use = {json.dumps(place.device)}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _changed(study: Study, *overrides: str) -> Study:
    """The study with some settings changed."""
    table = apply_overrides(study.model_dump(mode="json"), list(overrides))
    return validated(Study, table, "study")


def _gpu_share(place: Place, sites: int) -> float:
    """What of a GPU each site takes, so that all run at once."""
    return 1.0 / sites if torch.cuda.is_available() and place.device != "cpu" else 0.0
