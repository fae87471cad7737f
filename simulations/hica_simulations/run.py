"""One simulated study: its sites made, and its federation run over them.

What lies in the run directory afterwards:

    scenario.toml, study.json    what was asked for, every default written out
    state.safetensors            the last completed step, where a killed run goes on
    model.safetensors, .json     trained weights, text bank and centre
    result.json                  metrics and rounds
    predictions.json             of every test image, for paired comparisons
    report.html, events/         for people
    sites/NAME/                  each site's site.toml, manifest.csv and state/
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hica.device import repeatable
from hica.errors import ConfigurationError
from hica.storage import write_atomically
from hica.study import Study, read_toml
from hica_client.app import app as client_app
from hica_client.app import forget_sessions
from hica_server.app import Watcher, make_server_app
from hica_server.publication import publish
from hica_simulations.grid import run_in_process
from hica_simulations.partitions import SiteFolder, build_sites
from hica_simulations.place import Place
from hica_simulations.predictions import gathered
from hica_simulations.ray_engine import run_on_ray
from hica_simulations.scenario import Scenario
from hica_simulations.site_files import introduce, write_sites
from hica_simulations.text_banks import text_bank

PREDICTIONS = "predictions.json"
SCENARIO = "scenario.toml"

Watching = Callable[[str], AbstractContextManager[Watcher]]
"""Makes the watcher of a named federation, open while that federation runs."""


def silently(_: str) -> AbstractContextManager[Watcher]:
    """Watch nothing."""
    return nullcontext(Watcher())


def simulate(
    scenario: Scenario, place: Place, watching: Watching = silently, zero_shot: bool = True
) -> dict[str, Any]:
    """Run or resume a simulated study; returns its `result.json`.

    With `zero_shot` the texts alone are evaluated before anything is trained.

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
    if (finished := finished_result(place.out, study)) is not None:
        return finished
    # One thread a site, as many sites at once as there are cores: faster than several threads on
    # one small site, and the result does not depend on the number of cores.
    repeatable()
    folders = build_sites(scenario, place.data, place.out, place.cache)
    federation = Federation("federated", study, folders, place.out)
    result = run_federation(federation, place, watching, sources_of(scenario), zero_shot)
    forget_sessions()
    return result


def sources_of(scenario: Scenario) -> dict[str, str]:
    """Site → the manifest its images come from, within which a patient's name is unique."""
    return {site.name: site.manifest or site.name for site in scenario.simulation.sites}


def claim(out: Path, scenario: Scenario) -> None:
    """Write `out/scenario.toml`, unless the folder is another scenario's.

    Raises:
        ConfigurationError: The folder holds a run of another study or of other sites.
    """
    path = out / SCENARIO
    if path.exists() and read_toml(path) != scenario.as_table():
        raise ConfigurationError(
            f"{out}: holds a run of another study or of other sites (see scenario.toml there). "
            "Use another --out, or delete that folder"
        )
    write_atomically(path, scenario.as_toml().encode())


def finished_result(out: Path, study: Study) -> dict[str, Any] | None:
    """The result of a federation that has nothing left to do, else None.

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
    return result


@dataclass(frozen=True)
class Federation:
    """A study over some sites, with a name for whoever watches it.

    The site files lie in its run directory `out`, so that no two federations share a site's state.
    """

    name: str
    study: Study
    folders: Sequence[SiteFolder]
    out: Path


def run_federation(
    federation: Federation,
    place: Place,
    watching: Watching,
    sources: Mapping[str, str],
    zero_shot: bool = False,
) -> dict[str, Any]:
    """Run or resume one federation; returns its `result.json`.

    Of `place` all but `out` is used; `sources` is as `sources_of` gives it. With `zero_shot` the
    texts alone are evaluated before anything is trained.

    Raises:
        HicaError: Whatever stops the run; the same call resumes it.
    """
    study, out = federation.study, federation.out
    if (finished := finished_result(out, study)) is not None:
        return finished
    files = write_sites(federation.folders, out, place, study)
    if study.privacy.secure_aggregation:
        introduce(files, [folder.name for folder in federation.folders])
    nodes = [{"site": str(path)} for path in files]
    with watching(federation.name) as watcher:
        start = partial(publish, study, out, place.data, partial(text_bank, texts=place.data))
        server_app = make_server_app(study, out, start, watcher, zero_shot)
        if place.engine == "flower":
            run_on_ray(server_app, client_app, nodes, num_gpus=_gpu_share(place, len(nodes)))
        else:
            run_in_process(server_app, client_app, nodes, workers=place.workers)
    gathered(study, files, sources).save(out / PREDICTIONS)
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return result


def _gpu_share(place: Place, sites: int) -> float:
    """What of a GPU each site takes, so that all run at once."""
    return 1.0 / sites if torch.cuda.is_available() and place.device != "cpu" else 0.0
