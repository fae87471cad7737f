"""The stock ServerApp: send the weights to all sites, average what comes back, again.

What it leaves is `run_config["result"]`: a list of `{"seconds", "training"}`, one a round, from
its start to the start of the next; `training` is the longest that a site's function took.
"""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

WIDTH = 128
"""Width of the adapter: its norm, down and up layers have 33,280 weights."""
SHAPES = {
    "norm.weight": (WIDTH,),
    "norm.bias": (WIDTH,),
    "down.weight": (WIDTH, WIDTH),
    "down.bias": (WIDTH,),
    "up.weight": (WIDTH, WIDTH),
    "up.bias": (WIDTH,),
}

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds with the same sites."""
    config = context.run_config
    nodes = wait_for(grid, int(config["sites"]))
    generator = np.random.default_rng(0)
    weights = ArrayRecord(
        {
            name: Array(generator.standard_normal(shape, dtype=np.float32))
            for name, shape in SHAPES.items()
        }
    )
    rounds = []
    for number in range(int(config["rounds"])):
        started = time.monotonic()
        content = RecordDict({"arrays": weights, "config": ConfigRecord({"round": number})})
        messages = [Message(content, node, "train", group_id=str(number)) for node in nodes]
        replies = [reply.content for reply in grid.send_and_receive(messages)]
        weights = mean([reply.array_records["arrays"] for reply in replies])
        seconds = time.monotonic() - started
        training = max(float(str(reply.metric_records["metrics"]["seconds"])) for reply in replies)
        rounds.append({"seconds": seconds, "training": training})
    Path(str(config["result"])).write_text(json.dumps(rounds), encoding="utf-8")


def wait_for(grid: Grid, sites: int) -> list[int]:
    """Wait until as many sites are connected; returns their nodes."""
    while len(nodes := list(grid.get_node_ids())) < sites:
        time.sleep(1)
    return nodes


def mean(updates: list[ArrayRecord]) -> ArrayRecord:
    """Mean of the updates, name by name."""
    return ArrayRecord(
        {
            name: Array(np.mean([update[name].numpy() for update in updates], axis=0))
            for name in updates[0]
        }
    )
