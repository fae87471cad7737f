"""A study's training without a federation: at each site alone, and with all images in one place."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hica.method.site_metrics import SiteMetrics
from hica.method.stratified import combine
from hica.study import changed
from hica_simulations.partitions import SiteFolder, pooled_folders
from hica_simulations.place import Place
from hica_simulations.run import Federation, Watching, run_federation, sources_of
from hica_simulations.scenario import Scenario

ALONE = {
    "federation": {"quorum": 1},
    "privacy": {"secure_aggregation": False, "noise": "local"},
    "personal": {"epochs": 0},
}
"""One site has nobody to hide among, and its noise must be enough by itself; what it has learnt is
its own model."""


class BaselineFederations:
    """Federations of one site, on the shots and test images of a scenario's own federation.

    `folders` are what `build_sites` returns; each federation is run below `out/baselines`.
    """

    def __init__(
        self, scenario: Scenario, folders: Sequence[SiteFolder], place: Place, watching: Watching
    ) -> None:
        self.study = scenario.study
        self.sources = sources_of(scenario)
        self.folders = folders
        self.place = place
        self.watching = watching

    def metrics(self, tested: Collection[str]) -> dict[str, Any]:
        """Metrics of `local_only` and `pooled`, run side by side on the machine's cores.

        Only the sites `tested` in the federation are tested alone: there is something to compare.
        """
        alone = [folder for folder in self.folders if folder.labelled and folder.name in tested]
        with ThreadPoolExecutor(self.place.workers) as pool:  # the longest first
            pooled = pool.submit(self.pooled)
            local = [pool.submit(self.local_only, folder) for folder in alone]
            per_site = {k: v for future in local for k, v in future.result().items()}
            return {
                "local_only": self._combined(per_site),
                "pooled": self._combined(pooled.result()),
            }

    def local_only(self, folder: SiteFolder) -> dict[str, Any]:
        """Train at one site alone, on its own shots; its test metrics by name."""
        out = self.place.out / "baselines" / "local_only" / folder.name
        name, study = f"local only: {folder.name}", changed(self.study, ALONE)
        return self._run(Federation(name, study, [folder], out))

    def pooled(self) -> dict[str, Any]:
        """Train on the shots and images of all sites in one place; their test metrics by name."""
        out = self.place.out / "baselines" / "pooled"
        shots = self.study.alignment.shots * len(self.folders)
        study = changed(self.study, ALONE, {"alignment": {"shots": shots}})
        together = pooled_folders(self.folders, self.study, out)
        return self._run(Federation("pooled", study, together, out))

    def _run(self, federation: Federation) -> dict[str, Any]:
        result = run_federation(federation, self.place, self.watching, self.sources)
        return dict(result["per_site"])

    def _combined(self, per_site: dict[str, Any]) -> dict[str, Any]:
        count = len(self.study.classes)
        metrics = [SiteMetrics.from_dict(table, count, site) for site, table in per_site.items()]
        return {**combine(metrics).to_dict(), "per_site": per_site}
