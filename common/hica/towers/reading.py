"""reading: weights from a file, checked; nothing in it is ever run.

Read are safetensors (whole, or in parts with their index) and what PyTorch saves, with
`weights_only`. What surrounds the weights is taken off (`hica.towers.unwrapping`).
"""

import hashlib
import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hica.below import below
from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.model_folder import WEIGHT_MAP, read_json
from hica.printable import plain
from hica.towers.pickled import why_not_read
from hica.towers.unwrapping import fitted, inside, unwrapped

logger = logging.getLogger("hica")

INDEX = ".index.json"
"""End of the name of an index: which file holds a weight."""
POINTER = b"version https://git-lfs"
MOST_NAMES = 3
"""Of each of the three kinds of mistakes; an error names no more than ten."""

BOOKKEEPING = (
    "argparse.Namespace",
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
)
"""What programs note beside weights: arguments, the best score. An empty object takes its place."""


class _Nothing:
    """Stands in the place of an object whose own code is not run."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def listing_sha256(files: Iterable[Path], folder: Path) -> str:
    """SHA-256, in hex, over the hashes and names of files: what `sha256sum FILES | sha256sum` says.

    Files in the order of their names in `folder`; where that lies makes no difference.
    """
    named = sorted(
        (path.relative_to(folder).as_posix() if folder in path.parents else path.name, path)
        for path in files
    )
    lines = (f"{file_sha256(path)}  {name}\n" for name, path in named)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file, in hex; of an index and its parts that of their listing."""
    if path.name.endswith(INDEX):
        return listing_sha256([path, *parts_of(path)], path.parent)
    return file_sha256(path)


def parts_of(index: Path) -> list[Path]:
    """The files that an index names, by name.

    Raises:
        WeightsError: It is no index, or a file is missing or lies elsewhere.
    """
    table = read_json(index)
    names = table.get(WEIGHT_MAP) if isinstance(table, dict) else None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise WeightsError(f"{index}: has no {WEIGHT_MAP}; fetch the model anew")
    parts = [below(index.parent, name, f"{index.name}: {WEIGHT_MAP}") for name in names.values()]
    for part in parts:
        if not part.is_file():
            raise WeightsError(f"{part}: no such file, but {index.name} names it; fetch it, too")
    return sorted(set(parts), key=_name)


def check_hash(path: Path, sha256: str | None) -> None:
    """Check that a weights file exists and, where a hash is pinned, that it is the one meant.

    Raises:
        WeightsError: Names the file, both hashes and the remedy.
    """
    if not path.is_file():
        kind = "a folder, not a file" if path.is_dir() else "no such weights file"
        raise WeightsError(f"{path}: {kind}; put it there or correct model.checkpoint")
    _start(path)
    if sha256 is not None:
        refuse_other(path, weights_sha256(path), sha256)


def refuse_other(path: Path, found: str, sha256: str) -> None:
    """Raise where weights are not those that are pinned.

    Raises:
        WeightsError: Names both hashes and the remedy.
    """
    if found != sha256:
        raise WeightsError(
            f"{path}: these are other weights than the study's\n"
            f"  expected sha256 {sha256}\n  found sha256    {found}\n"
            "ask the coordinator for the file, or correct model.sha256 in the study"
        )


def read_weights(
    path: Path,
    sha256: str | None = None,
    own: Collection[str] = (),
    heads: tuple[str, ...] = (),
    notes: list[str] | None = None,
) -> dict[str, Tensor]:
    """Read a state dict, floating point as float32.

    `sha256` is the expected hash of the file, in hex; `own` and `heads` are those of
    `hica.towers.unwrapping.fitted`. What was left out is added to `notes`, or said in the log.

    Raises:
        WeightsError: The file is missing, of another hash, or holds no state dict.
    """
    check_hash(path, sha256)
    try:
        state, told = unwrapped(_stored(path))
    except ValueError as error:
        raise WeightsError(
            f"{path}: holds no state dict but {error}; save model.state_dict() instead"
        ) from None
    state, left_out = fitted(state, own, heads)
    for note in map(plain, [*told, *left_out]):
        if notes is None:
            logger.info("%s: %s", path.name, note)
        else:
            notes.append(note)
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }


def load_weights(module: nn.Module, state: dict[str, Tensor], source: Path, name: str) -> None:
    """Load a state dict whole: nothing missing, nothing left over, every number finite.

    Raises:
        WeightsError: Names the file, the model and the first keys or shapes that do not match.
    """
    own = module.state_dict()
    both = own.keys() & state.keys()
    differing = {
        # Old checkpoints lack BatchNorm's step counters, which nothing here reads.
        "missing": {key for key in own if not key.endswith("num_batches_tracked")} - both,
        "unexpected": state.keys() - both,
        "of another shape": {key for key in both if own[key].shape != state[key].shape},
    }
    problems = [f"{kind}: {names(sorted(keys))}" for kind, keys in differing.items() if keys]
    if problems and (remedy := inside(state, differing["missing"] | both)):
        raise WeightsError(f"{source}: not weights of {name} as they are: {remedy}")
    if problems:
        raise WeightsError(
            f"{source}: not weights of {name}\n  " + "\n  ".join(problems) + "\n"
            "use the model these weights were made for, or other weights"
        )
    turned = [
        key for key in both if own[key].is_floating_point() and not state[key].is_floating_point()
    ]
    if turned:
        raise WeightsError(
            f"{source}: {names(sorted(turned))}: whole numbers in place of weights, as in a "
            "quantised model; take its weights in float32, float16 or bfloat16"
        )
    refuse_broken({key: state[key] for key in both}, source)
    module.load_state_dict(state, strict=False)


def refuse_broken(state: dict[str, Tensor], source: Path) -> None:
    """Raise where a weight is NaN or infinite, or a variance negative: its training has failed.

    Raises:
        WeightsError: Names the file and the first keys.
    """
    bad = [
        key
        for key, value in state.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if bad:
        raise WeightsError(
            f"{source}: {names(sorted(bad))}: NaN or infinite, so these weights are broken; take "
            "an earlier checkpoint, or fetch the file anew"
        )
    below = [key for key in state if key.endswith("running_var") and bool((state[key] < 0).any())]
    if below:
        raise WeightsError(
            f"{source}: {names(sorted(below))}: negative, which no variance is, so these weights "
            "are broken; take an earlier checkpoint, or fetch the file anew"
        )


def names(keys: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(keys) - MOST_NAMES
    told = ", ".join(plain(key[:120]) for key in keys[:MOST_NAMES])
    return told + (f" and {more} more" if more > 0 else "")


def _stored(path: Path) -> Any:
    """What a file holds."""
    if path.name.endswith(INDEX):
        parts = (unwrapped(_stored(part))[0] for part in parts_of(path))
        return {key: value for part in parts for key, value in part.items()}
    start = _start(path)
    if start == POINTER:
        raise WeightsError(
            f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in the folder it "
            "comes from, or fetch the file itself"
        )
    try:
        if start[8:9] == b"{" or path.suffix == ".safetensors":
            return load_file(path)
        inert: list[Any] = [(_Nothing, name) for name in BOOKKEEPING]
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn files raise nearly anything: OSError, IndexError, KeyError, …
        raise WeightsError(
            f"{path}: not a weights file that can be read{why_not_read(path, error)}"
        ) from None


def _start(path: Path) -> bytes:
    """The first bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER))
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error.strerror}; give this user the right to read it"
        ) from None


def _name(path: Path) -> str:
    return path.name
