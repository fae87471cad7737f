"""What a round costs beside the training: our in-process engine against Flower's Ray engine.

Eight sites are sent the tiny adapter, and send it back as it came; the messages are encoded and
checked as in a study. What a round takes, less the time within the sites' function, is overhead.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from hica.steps.alignment import ALIGNMENT
from hica.study import Study, validated
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica.wire.messages import Arrays, Reply, Request, spec_of
from hica.wire.records import decode_request, encode_reply
from hica_server.exchange import Limits, exchange
from hica_simulations.experiments.benchmarks.timing import Figure, alternate, ratio
from hica_simulations.grid import run_in_process
from hica_simulations.ray_engine import run_on_ray

KIND = ALIGNMENT.kind
STUDY = validated(
    Study,
    {
        "study": {"name": "echo"},
        "classes": [{"name": name, "prompts": [name]} for name in ("benign", "malignant")],
    },
    "echo",
)

Run = Callable[[ServerApp, ClientApp, Sequence[Mapping[str, Any]]], None]

echo_app = ClientApp()


@echo_app.train(KIND.split(".")[1])
def echo(message: Message, context: Context) -> Message:
    """The site: copies the weights, which stands for training, and says how long that took."""
    request = decode_request(message.content, KIND)
    started = time.perf_counter()
    arrays = {name: value.copy() for name, value in request.arrays.items()}
    seconds = time.perf_counter() - started
    site = str(context.node_config["site"])
    reply = Reply(request.kind, site, request.round, 1, {"seconds": seconds}, arrays)
    return Message(encode_reply(reply), reply_to=message)


@dataclass
class Engine:
    """An engine; each call of `run` starts it anew and runs a ServerApp to its end."""

    run: Run
    start_ups: list[float] = field(default_factory=list)
    """Seconds until the first round was done, one a run."""

    def overhead(self, sites: int, rounds: int) -> float:
        """Median overhead of a round after the first, in seconds."""
        arrays = adapter_arrays()
        overheads: list[float] = []
        started = time.perf_counter()
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:  # noqa: ARG001  Flower's signature
            nodes = dict.fromkeys(grid.get_node_ids(), "")
            limits = Limits(quorum=sites, deadline=300.0, retries=0)
            for number in range(rounds + 1):
                request = Request(KIND, STUDY, number, arrays=arrays)
                outcome = exchange(grid, nodes, request, spec_of(arrays), limits)
                trained = sum(reply.details["seconds"] for reply in outcome.replies.values())
                if number == 0:
                    self.start_ups.append(time.perf_counter() - started)
                else:
                    overheads.append(outcome.seconds - trained)

        self.run(app, echo_app, [{"site": f"site-{number}"} for number in range(sites)])
        return median(overheads)


def adapter_arrays() -> Arrays:
    """The weights of the tiny tower's adapter, about 33,000."""
    tower = adapt(load_image_tower("tiny"), "adapter")
    return {name: value.detach().numpy() for name, value in tower.trainable().items()}


def compare_engines(repeat: int, sites: int = 8, rounds: int = 5) -> list[Figure]:
    """Overhead of a round and start-up of both engines, in runs of as many rounds that count.

    Raises:
        ConfigurationError: Ray is not installed.
    """
    ours, rays = Engine(run_in_process), Engine(run_on_ray)
    ways = {
        "ours": partial(ours.overhead, sites, rounds),
        "ray": partial(rays.overhead, sites, rounds),
    }
    # Without a warm-up: every run has a first round that does not count.
    overhead = alternate(ways, repeat, warm_up=False)
    over = ratio(overhead["ray"], overhead["ours"])
    return [
        Figure("overhead of a round, in-process", median(overhead["ours"]), "s", below=0.05),
        Figure("overhead of a round, Ray", median(overhead["ray"]), "s"),
        Figure("overhead of a round, Ray / in-process", over, "×", at_least=5),
        Figure("start-up with the first round, in-process", median(ours.start_ups), "s"),
        Figure("start-up with the first round, Ray", median(rays.start_ups), "s"),
    ]
