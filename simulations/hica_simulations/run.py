"""One simulated study: sites made, federation and baselines run on the same shots.

What lies in the run directory afterwards:

    scenario.toml, study.json    what was asked for, every default written out
    state.safetensors            the last completed step, where a killed run goes on
    model.safetensors, .json     trained weights, text bank and centre
    result.json                  metrics, rounds, baselines
    predictions.json             of every test image, for paired comparisons
    report.html, events/         for people
    sites/NAME/                  each site's site.toml, manifest.csv and state/
    baselines/                   local_only/NAME and pooled: the same files
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from hica.deployment.keys import generate, public_path, read_public
from hica.deployment.kit import ROSTER, roster_json
from hica.device import repeatable
from hica.errors import ConfigurationError
from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.storage import write_atomically
from hica.study import Study, apply_overrides, validated
from hica.text.bank import TextBank
from hica.wire.checkpoint import write_json
from hica_client.app import app as client_app
from hica_client.app import forget_sessions
from hica_server.app import Watcher, make_server_app
from hica_server.publication import make_bank, publish, text_key
from hica_simulations.experiments.baselines.shots import shot_baselines
from hica_simulations.grid import run_in_process
from hica_simulations.partitions import SiteFolder, build_sites, pooled_folders
from hica_simulations.predictions import gathered
from hica_simulations.ray_engine import run_on_ray
from hica_simulations.scenario import Scenario
from hica_simulations.toml_text import to_toml

ALONE = ("privacy.secure_aggregation=false", "privacy.noise=local")
"""One site has nobody to hide among, and its noise must be enough by itself."""

MOST_EPSILON = 1e6
"""`policy.max_epsilon` of a simulated site."""

_BANKS: dict[str, TextBank] = {}
"""The last text bank that was made, by all it is made of."""
_ONE_BANK = threading.Lock()

PREDICTIONS = "predictions.json"

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
        workers: Sites that compute at once, one thread each.
    """

    data: Path
    out: Path
    cache: Path
    device: str = "auto"
    engine: Engine = "grid"
    workers: int = os.cpu_count() or 1


def silently(_: str) -> AbstractContextManager[Watcher]:
    """Watch nothing."""
    return nullcontext(Watcher())


def simulate(
    scenario: Scenario,
    place: Place,
    baselines: bool = True,
    watching: Watching = silently,
    zero_shot: bool = True,
) -> dict[str, Any]:
    """Run or resume a simulated study; returns its `result.json`.

    Args:
        scenario: Study and sites.
        place: Files and engine.
        baselines: Whether to run local-only, pooled and the probes on the same shots.
        watching: Told of progress.
        zero_shot: Whether the texts alone are evaluated before anything is trained.

    Raises:
        HicaError: Whatever stops the run; the same call resumes it.
    """
    study = scenario.study
    if study.privacy.secure_aggregation and place.engine == "flower":
        raise ConfigurationError(
            "a secure sum keeps keys in memory from one message to the next, and Flower's engine "
            "may answer each in another process: use --engine grid"
        )
    claim(place.out, scenario)
    finished = finished_result(place.out, study, baselines)
    if finished is not None:
        return finished
    # One thread a site, as many sites at once as there are cores: faster than several threads on
    # one small site, and the result does not depend on the number of cores.
    repeatable()
    folders = build_sites(scenario, place.data, place.out, place.cache)
    runs = Federations(study, folders, place, watching, sources_of(scenario))
    result = runs.federated(zero_shot)
    if baselines:
        policy = policy_of(scenario.study)
        sites = [write_site(folder, place.out, place, policy) for folder in folders]
        probes = shot_baselines(study, sites)
        result["baselines"] |= probes | runs.baselines(tested=result["per_site"].keys())
    forget_sessions()
    write_json(place.out / "result.json", result)
    return result


def sources_of(scenario: Scenario) -> dict[str, str]:
    """Site → the manifest its images come from, within which a patient's name is unique."""
    return {site.name: site.manifest or site.name for site in scenario.simulation.sites}


def claim(out: Path, scenario: Scenario) -> None:
    """Write `out/scenario.toml`, unless the folder is another scenario's.

    Raises:
        ConfigurationError: The folder holds a run of another study or of other sites.
    """
    path, text = out / "scenario.toml", scenario.as_toml()
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigurationError(
            f"{out}: holds a run of another study or of other sites (see scenario.toml there). "
            "Use another --out, or delete that folder"
        )
    write_atomically(path, text.encode())


def finished_result(out: Path, study: Study, baselines: bool) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do, else None.

    Raises:
        ConfigurationError: The folder holds a run of another study.
    """
    path = out / "result.json"
    if not path.exists() or not (out / PREDICTIONS).exists():  # the latter is written last
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
        self,
        study: Study,
        folders: Sequence[SiteFolder],
        place: Place,
        watching: Watching,
        sources: Mapping[str, str],
    ) -> None:
        """Nothing is run yet.

        Args:
            study: The study.
            folders: Its sites.
            place: Files and engine.
            watching: Told of progress.
            sources: Of `sources_of`.
        """
        self.study = study
        self.folders = folders
        self.place = place
        self.watching = watching
        self.sources = sources

    def federated(self, zero_shot: bool = True) -> dict[str, Any]:
        """The study itself; returns its `result.json`.

        Args:
            zero_shot: Whether the texts alone are evaluated first; baselines start from the same.
        """
        return self._run(self.study, self.folders, self.place.out, "federated", zero_shot)

    def baselines(self, tested: Collection[str]) -> dict[str, Any]:
        """`local_only` and `pooled`, their federations side by side on the machine's cores.

        Args:
            tested: Sites that were tested in the federation; the others have nothing to compare.
        """
        alone = [folder for folder in self.folders if folder.labelled and folder.name in tested]
        with ThreadPoolExecutor(self.place.workers) as pool:  # the longest first
            pooled = pool.submit(self.pooled)
            local = [pool.submit(self.local_only, folder) for folder in alone]
            per_site = [future.result() for future in local]
            return {
                "local_only": self._combined({k: v for part in per_site for k, v in part.items()}),
                "pooled": self._combined(pooled.result()),
            }

    def local_only(self, folder: SiteFolder) -> dict[str, Any]:
        """The same training at one site alone, on its own shots; its test metrics by name."""
        out = self.place.out / "baselines" / "local_only" / folder.name
        study = _changed(self.study, "federation.quorum=1", *ALONE)
        return dict(self._run(study, [folder], out, f"local only: {folder.name}")["per_site"])

    def pooled(self) -> dict[str, Any]:
        """The same training on all shots and images in one place; test metrics of the sites."""
        out = self.place.out / "baselines" / "pooled"
        shots = self.study.alignment.shots * len(self.folders)
        study = _changed(self.study, "federation.quorum=1", f"alignment.shots={shots}", *ALONE)
        together = pooled_folders(self.folders, self.study, out)
        return dict(self._run(study, together, out, "pooled")["per_site"])

    def _run(
        self,
        study: Study,
        folders: Sequence[SiteFolder],
        out: Path,
        name: str,
        zero_shot: bool = False,
    ) -> dict[str, Any]:
        """Run or resume one federation over site folders."""
        finished = finished_result(out, study, baselines=False)
        if finished is not None:
            return finished
        place = self.place
        policy = policy_of(study)
        files = [write_site(folder, out, place, policy) for folder in folders]
        if study.privacy.secure_aggregation:
            introduce(files, [folder.name for folder in folders])
        nodes = [{"site": str(path)} for path in files]
        with self.watching(name) as watcher:
            start = partial(publish, study, out, place.data, partial(text_bank, texts=place.data))
            server_app = make_server_app(study, out, start, watcher, zero_shot)
            if place.engine == "flower":
                run_on_ray(server_app, client_app, nodes, num_gpus=_gpu_share(place, len(nodes)))
            else:
                run_in_process(server_app, client_app, nodes, workers=place.workers)
        gathered(study, files, self.sources).save(out / PREDICTIONS)
        result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return result

    def _combined(self, per_site: dict[str, Any]) -> dict[str, Any]:
        """Overall and per-site metrics of a baseline."""
        count = len(self.study.classes)
        metrics = [SiteMetrics.from_dict(table, count, site) for site, table in per_site.items()]
        return {**combine(metrics).to_dict(), "per_site": per_site}


def text_bank(study: Study, dim: int, texts: Path) -> TextBank:
    """The study's text bank, made once: refining its tower takes longer than a small federation.

    Args:
        study: Its classes and `[text]`.
        dim: Width of the joint space.
        texts: Folder below which the corpus lies.
    """
    key = f"{text_key(study, texts)} {dim}"
    with _ONE_BANK:  # a resumed run may first need it in the baselines' threads
        if key not in _BANKS:
            _BANKS.clear()  # the next runs are of the same texts, or of others for good
            _BANKS[key] = make_bank(study, dim, texts)
        return _BANKS[key]


def policy_of(study: Study) -> dict[str, Any]:
    """What the policy of a simulated site has to say to take part in a private study.

    No patient stands behind it: the budget is never what ends a run, and noise can be drawn again.
    """
    if not study.privacy.is_private:
        return {}
    return {"max_epsilon": MOST_EPSILON, "delta": study.privacy.delta, "noise": "seeded"}


def write_site(
    folder: SiteFolder, out: Path, place: Place, policy: Mapping[str, Any] | None = None
) -> Path:
    """Write `out/sites/NAME/site.toml`, as a hospital would write its own; returns its path.

    Each federation has site files of its own, so that a baseline never shares a site's state.
    """
    path = out / "sites" / folder.name / "site.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "[site]",
        f"name = {json.dumps(folder.name)}",
        "[data]",
        f"manifest = {json.dumps(str(folder.manifest.resolve()))}",
        f"weights = {json.dumps(str(place.data.resolve()))}",
        f"cache = {json.dumps(str(place.cache.resolve()))}",
        *_prevalence_lines(folder.prevalence),
        "[device]",
        f"use = {json.dumps(place.device)}",
    ]
    text = "\n".join(lines) + "\n" + (to_toml({"policy": dict(policy)}) if policy else "")
    path.write_text(text, encoding="utf-8")
    return path


def _prevalence_lines(prevalence: Mapping[str, float]) -> list[str]:
    shares = [f"{json.dumps(name)} = {share!r}" for name, share in prevalence.items()]
    return [f"prevalence = {{ {', '.join(shares)} }}"] if shares else []


def introduce(site_files: Sequence[Path], names: Sequence[str]) -> None:
    """Make every site's key and hand each the list of all, as start kits do; a repeat changes none.

    Args:
        site_files: `site.toml` of each.
        names: Of the sites.
    """
    roster = {}
    for path, name in zip(site_files, names, strict=True):
        key = path.parent / "keys" / "site"
        roster[name] = read_public(public_path(key)) if key.exists() else generate(key)
    for path in site_files:
        write_atomically(path.parent / "kit" / ROSTER, roster_json(roster))


def _changed(study: Study, *overrides: str) -> Study:
    """The study with some settings changed."""
    table = apply_overrides(study.model_dump(mode="json"), list(overrides))
    return validated(Study, table, "study")


def _gpu_share(place: Place, sites: int) -> float:
    """What of a GPU each site takes, so that all run at once."""
    return 1.0 / sites if torch.cuda.is_available() and place.device != "cpu" else 0.0
