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
from pathlib import Path
from statistics import median

from hica_simulations.deployment import Deployment
from hica_simulations.experiments.benchmarks.deployed import (
    new_deployment,
    round_seconds,
    serverapp_log,
    small_scenario,
    step_starts,
)
from hica_simulations.experiments.benchmarks.stock_flower import Credentials, stock_flower
from hica_simulations.experiments.benchmarks.timing import Figure, alternate, ratio

START_UP = 2
"""Rounds of a run that do not count."""


def our_seconds(starts: Sequence[tuple[str, float]]) -> list[float]:
    """Seconds of each round, without the first ones and the last, which no other round ends."""
    return round_seconds(starts)[START_UP:-1]


def stock_seconds(rounds: Sequence[dict[str, float]]) -> list[float]:
    """Seconds of each round of stock Flower less its training, the first rounds left out."""
    return [each["seconds"] - each["training"] for each in rounds[START_UP:]]


def credentials_of(deployment: Deployment) -> Credentials:
    """Certificates and keys of a deployment, with which stock Flower runs as well."""
    folder = deployment.folder
    keys = {name: deployment.site_file(name).parent / "keys" / "site" for name in deployment.names}
    return Credentials(folder.ca_certificate, folder.certificate, folder.key, keys)


def compare_overhead(repeat: int, sites: int, rounds: int) -> list[Figure]:
    """Seconds of a round, side by side, in runs of as many rounds that count.

    Raises:
        HicaError: A run has failed.
    """
    rounds += START_UP
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        # One round more: the last has no next one to end it.
        scenario = small_scenario("overhead", sites, rounds + 1, {"train": "adapter"})
        deployment = new_deployment(scenario, out / "hica")
        folder = deployment.folder

        def ours() -> float:
            # A site answers every turn of a study once: it is to forget that it has.
            sites = [deployment.site_file(name).parent for name in deployment.names]
            answers = [each for site in sites for each in site.glob("state/*/answers")]
            for earlier in (folder.run, folder.service, *answers):
                shutil.rmtree(earlier, ignore_errors=True)
            deployment.run()
            return median(our_seconds(step_starts(serverapp_log(folder))))

        def stock(client: str) -> float:
            shutil.rmtree(out / "stock", ignore_errors=True)
            with stock_flower(out / "stock", credentials_of(deployment)) as running:
                return median(stock_seconds(running.run(client, rounds)))

        seconds = alternate(
            {
                "ours": ours,
                "torch": lambda: stock("with_torch"),
                "plain": lambda: stock("without_torch"),
            },
            repeat,
            warm_up=False,  # every run leaves out its own start-up
        )
    return as_figures(seconds)


def as_figures(seconds: dict[str, list[float]]) -> list[Figure]:
    """Medians and ratios of the seconds of a round: `ours`, stock's with `torch` and `plain`."""
    ours, torch, plain = seconds["ours"], seconds["torch"], seconds["plain"]
    return [
        Figure("deployed: a round, HiCA", median(ours), "s"),
        Figure("deployed: a round, stock Flower, ClientApp with torch", median(torch), "s"),
        Figure("deployed: a round, stock Flower, ClientApp without", median(plain), "s"),
        Figure("HiCA / stock Flower with torch", ratio(ours, torch), "×", below=0.5),
        Figure("HiCA / stock Flower without torch", ratio(ours, plain), "×", below=0.5),
    ]
