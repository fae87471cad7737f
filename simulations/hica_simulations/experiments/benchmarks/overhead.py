"""What a round costs beside the training, deployed: HiCA's processes against stock Flower's.

Both have one coordinator and its sites on this machine, TLS, nodes with keys, and an adapter of
33,280 weights that is sent, changed and sent back. What is compared is what a user waits for:

- HiCA: from the start of a round to the start of the next, as the ServerApp logs them. That is an
  exchange (asking, the site's guard and audit log, its answer, all checks) with averaging, the
  atomic checkpoint, progress and events. The sites' training on three small phantoms is not taken
  off.
- Stock: from the start of a round of its ServerApp to the start of the next, an exchange and a
  mean, less the seconds in the function that stands for training. Its SuperNodes start a process
  for every message, so that what the ClientApp imports counts: torch, or only NumPy.

The first two rounds of every run are start-up and are left out.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from hica_simulations.deployment import Deployment
from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    serverapp_log,
    small_scenario,
    step_starts,
)
from hica_simulations.experiments.benchmarks.stock_flower import Credentials, StockFlower
from hica_simulations.experiments.benchmarks.timing import Figure, alternate, ratio

START_UP = 2
"""Rounds of a run that do not count."""


@dataclass
class Deployed:
    """HiCA, deployed once and run again and again from the start.

    Attributes:
        deployment: Ready to run.
    """

    deployment: Deployment

    def round(self) -> float:
        """Median seconds of a round in a new run."""
        for folder in (self.deployment.folder.run, self.deployment.folder.service):
            shutil.rmtree(folder, ignore_errors=True)
        self.deployment.run()
        return median(round_seconds(step_starts(serverapp_log(self.deployment.folder))))


def round_seconds(starts: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds from each alignment round to the next, the first rounds left out.

    Args:
        starts: Name of every step of a run, and when it began; of the last round no end is known.
    """
    times = [time for name, time in starts if name.startswith("alignment ")]
    return [after - before for before, after in pairwise(times[START_UP:])]


def stock_seconds(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Seconds of each round of stock Flower less its training, the first rounds left out."""
    return [each["seconds"] - each["training"] for each in rounds[START_UP:]]


def credentials_of(deployment: Deployment) -> Credentials:
    """Certificates and keys of a deployment, with which stock Flower runs as well."""
    folder = deployment.folder
    keys = {name: deployment.site_file(name).parent / "keys" / "site" for name in deployment.names}
    return Credentials(folder.ca_certificate, folder.certificate, folder.key, keys)


def compare_overhead(repeat: int, sites: int = 2, rounds: int = 8) -> list[Figure]:
    """Seconds of a round, side by side.

    Args:
        repeat: Runs of each way, by turns.
        sites: Number of sites.
        rounds: Rounds of a run that count.

    Raises:
        HicaError: A run has failed.
    """
    rounds += START_UP
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        # One round more: the last has no next one to end it.
        scenario = small_scenario("overhead", sites, rounds + 1, {"train": "adapter"})
        ours = Deployed(new_deployment(scenario, out / "hica"))

        def stock(client: str) -> float:
            folder = out / "stock"
            shutil.rmtree(folder, ignore_errors=True)
            with StockFlower(folder, credentials_of(ours.deployment)) as running:
                return median(stock_seconds(running.run(client, rounds)))

        seconds = alternate(
            {
                "ours": ours.round,
                "torch": lambda: stock("with_torch"),
                "plain": lambda: stock("without_torch"),
            },
            repeat,
            warm_up=False,  # every run leaves out its own start-up
        )
    return as_figures(seconds)


def as_figures(seconds: dict[str, list[float]]) -> list[Figure]:
    """Medians and ratios.

    Args:
        seconds: Seconds of a round in each run of `ours`, and of stock's `torch` and `plain`.
    """
    ours, torch, plain = seconds["ours"], seconds["torch"], seconds["plain"]
    return [
        Figure("deployed: a round, HiCA", median(ours), "s"),
        Figure("deployed: a round, stock Flower, ClientApp with torch", median(torch), "s"),
        Figure("deployed: a round, stock Flower, ClientApp without", median(plain), "s"),
        Figure("HiCA / stock Flower with torch", ratio(ours, torch), "×", below=0.5),
        Figure("HiCA / stock Flower without torch", ratio(ours, plain), "×", below=0.5),
    ]
