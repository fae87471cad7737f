"""The stock ClientApp of a model that needs NumPy only; else as `with_torch`."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

STEP = np.float32(1e-3)

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001  Flower's signature
    """Stands for training: every weight moves by `STEP`."""
    record = message.content.array_records["arrays"]
    state = {name: array.numpy() for name, array in record.items()}
    started = time.perf_counter()
    trained = {name: value + STEP for name, value in state.items()}
    seconds = time.perf_counter() - started
    arrays = ArrayRecord({name: Array(value) for name, value in trained.items()})
    metrics = MetricRecord({"seconds": seconds})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
