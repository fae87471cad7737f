"""The stock ClientApp of a torch model: its state dict comes, is changed a little and goes back."""

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

STEP = 1e-3

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001  Flower's signature
    """Stands for training: every weight moves by `STEP`."""
    state = message.content.array_records["arrays"].to_torch_state_dict()
    started = time.perf_counter()
    trained = {name: torch.add(value, STEP) for name, value in state.items()}
    seconds = time.perf_counter() - started
    arrays, metrics = ArrayRecord(trained), MetricRecord({"seconds": seconds})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
