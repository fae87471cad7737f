"""Where the arithmetic happens, and in which precision."""

import os
import re
from contextlib import AbstractContextManager, nullcontext

import torch

from hica.errors import ConfigurationError


def select_device(name: str) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, or `cuda:N`.

    Raises:
        ConfigurationError: An unknown name, or a GPU this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch("cuda(:[0-9]{1,4})?", name):
        raise ConfigurationError(f"device {name!r}: expected auto, cpu or cuda:N")
    index = name.partition(":")[2]
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= available:
        raise ConfigurationError(f"device {name!r}: this machine has {available} GPU(s); use auto")
    return torch.device("cuda", int(index or 0))


def precision(device: torch.device) -> torch.dtype:
    """What towers compute in: bfloat16 on a GPU; float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the device's `precision`."""
    if precision(device) == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision(device))


def repeatable() -> None:
    """Let torch compute the same bits from the same, however many cores there are, or raise.

    cuBLAS does so in a workspace of fixed size only, which it reads from the environment.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
