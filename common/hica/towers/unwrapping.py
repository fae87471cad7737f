"""unwrapping: the state dict inside a checkpoint, whatever was put around it.

Programs save weights below a key (`state_dict`, `model`, …), and wrappers of modules put words
before every name (`module.`, `_orig_mod.`, …), in any nesting and order. One way takes all of that
off, for towers, SAM and U-Nets. What is taken where there are several, and what is left out, is
told in words.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

from hica.printable import listed, plain

WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "teacher",
    "student",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
)
"""Keys that hold a state dict; of several, the first here is taken: averaged weights (EMA) before
those of the last step, as timm does; of DINO the teacher, which its authors evaluate."""

PREFIXES = (
    "module.",  # DataParallel, DistributedDataParallel
    "_orig_mod.",  # torch.compile
    "_module.",  # Opacus
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "teacher.",
    "student.",
)
"""Words before names; each is taken off where all names have it."""
OF_TORCH = PREFIXES[:3]
"""Those that PyTorch's own wrappers put there."""

TAKEN = {"teacher.": ("student.",), "encoder_q.": ("encoder_k.", "queue")}
"""Names of two networks in one state dict: which is taken, and beside which (DINO, MoCo)."""


def unwrapped(stored: object) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in what a file holds, and what was decided, in words.

    Raises:
        ValueError: There is none; says what there is.
    """
    notes: list[str] = []
    while isinstance(stored, Mapping) and (inside := [*_wrappers(stored)]):
        if inside[1:]:
            notes.append(f"of {', '.join(inside)}, {inside[0]} is taken")
        stored = stored[inside[0]]
    if not isinstance(stored, Mapping):
        raise ValueError(f"a {type(stored).__name__}")
    named = {key: value for key, value in stored.items() if isinstance(key, str)}
    state = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if not state:
        keys = listed([str(key)[:80] for key in stored]) or "nothing"
        raise ValueError(f"a table of {keys}, with no weights below {', '.join(WRAPPERS)}")
    if others := sorted(named.keys() - state.keys()):
        notes.append(f"{listed(others)}: no weights, left out")
    return state, notes


def fitted(
    state: dict[str, Tensor], own: Collection[str], heads: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """`state` by the names a model has, and what was left out, in words.

    `own` are all names of the model, or some that none of its kind lacks; without any, only what
    PyTorch's own wrappers put before names is taken off. `heads` are beginnings of names that the
    model need not have: what other programs train beside it.
    """
    notes: list[str] = []
    while not any(key in own for key in state if not key.startswith(heads)):
        for taken, others in TAKEN.items():
            beside = [key for key in state if key.startswith(others)]
            if beside and any(key.startswith(taken) for key in state):
                state = {key: value for key, value in state.items() if key.startswith(taken)}
                state = {key.removeprefix(taken): value for key, value in state.items()}
                notes.append(f"the weights below {taken[:-1]} are taken, not {listed(beside)}")
                break
        else:
            names = [key for key in state if not key.startswith(heads)]
            shared = (
                prefix
                for prefix in (PREFIXES if own else OF_TORCH)
                if names and all(key.startswith(prefix) for key in names)
            )
            prefix = next(shared, None)
            if prefix is None:
                break
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    beside = sorted(key for key in state if key.startswith(heads) and key not in own)
    if own and beside:
        notes.append(f"{listed(beside)}: a head that is not used, left out")
        state = {key: value for key, value in state.items() if key not in beside}
    return state, notes


def inside(state: Mapping[str, Tensor], own: Collection[str]) -> str:
    """How to save the part of `state` that has all names of `own`, in words; "" if none has."""
    some = min(own, default="")
    starts = (key.removesuffix(some) for key in sorted(state) if some and key.endswith(f".{some}"))
    for start in starts:
        # It becomes a part of a program that people copy.
        if re.fullmatch(r"[\w.]+", start) and all(f"{start}{key}" in state for key in own):
            beside = [plain(key[:120]) for key in sorted(state) if not key.startswith(start)]
            others = f", and beside them is {listed(beside)}" if beside else ""
            return (
                f"the names below {start} fit this model{others}. Save only those: "
                'python -c "import torch, pathlib; from hica.towers.reading import read_weights; '
                "c = read_weights(pathlib.Path('FILE')); torch.save({k.partition("
                f"'{start}')[2]: v for k, v in c.items() if '{start}' in k}}, 'plain.pth')\""
            )
    return ""


def _wrappers(stored: Mapping[Any, Any]) -> Iterator[str]:
    return (key for key in WRAPPERS if _holds_weights(stored.get(key)))


def _holds_weights(value: object) -> bool:
    """Whether it is a state dict, or wraps one."""
    if not isinstance(value, Mapping):
        return False
    named = any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    return named or any(True for _ in _wrappers(value))
