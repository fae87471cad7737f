"""A simulated study with the baselines that every run has, on the same shots and test images.

Beside what a run leaves in its directory, `baselines/` holds the same files for each site alone
(`local_only/NAME`) and for the data in one place (`pooled`).
"""

from typing import Any

from hica.device import repeatable
from hica.wire.checkpoint import write_json
from hica_client.app import forget_sessions
from hica_simulations.experiments.baselines.federations import BaselineFederations
from hica_simulations.experiments.baselines.registry import IN_EVERY_RUN
from hica_simulations.experiments.baselines.shots import ShotBaselines, runnable
from hica_simulations.partitions import build_sites
from hica_simulations.place import Place
from hica_simulations.run import Watching, silently, simulate
from hica_simulations.scenario import Scenario
from hica_simulations.site_files import write_sites


def simulate_with_baselines(
    scenario: Scenario, place: Place, watching: Watching = silently
) -> dict[str, Any]:
    """Run or resume a study and its baselines; returns its `result.json`.

    Raises:
        HicaError: Whatever stops the run; the same call resumes it.
    """
    result = simulate(scenario, place, watching)
    if "pooled" in result["baselines"]:  # written last, with all others
        return result
    repeatable()
    folders = build_sites(scenario, place.data, place.out, place.cache)
    sites = write_sites(folders, place.out, place, scenario.study)
    shots, names = ShotBaselines(scenario.study, sites), runnable(scenario.study, IN_EVERY_RUN)
    probes = {name: shots.metrics(name) for name in names}
    federations = BaselineFederations(scenario, folders, place, watching)
    result["baselines"] |= probes | federations.metrics(tested=result["per_site"].keys())
    forget_sessions()
    write_json(place.out / "result.json", result)
    return result
