"""save_state, load_state: a run's state on disk, whole at every instant.

A state is one safetensors file; its metadata and a SHA-256 over metadata and arrays lie in the
file's own header, so there is no pair of files to tear apart. It is written beside the old one,
flushed to the disk and renamed; the state before it is kept as `NAME.previous.safetensors`. A
process killed at any instant therefore leaves the old state or the new one, and a file damaged
later is noticed when it is read. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hica.errors import CheckpointError, StorageError
from hica.storage import replacing

if TYPE_CHECKING:  # the coordinator's run has no torch in memory
    import torch

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

REMEDIES = {
    errno.ENOSPC: "the disk is full: free space there",
    errno.EDQUOT: "the disk quota is used up: free space there",
    errno.EACCES: "make the folder writable for this user",
    errno.EROFS: "the file system is read-only: choose another folder",
}


def save_state(
    directory: Path,
    name: str,
    arrays: Mapping[str, NDArray[Any] | torch.Tensor],
    meta: Mapping[str, Any],
) -> Path:
    """Write a state in one atomic step, keeping the one before it.

    It goes to `directory`, made if missing, under a name, for example `server`. Arrays or tensors
    have any shape and any dtype numpy has (so not bfloat16); `meta` is what JSON can hold. Gives
    the file, which any safetensors reader opens.

    Raises:
        StorageError: It could not be written (disk full, permission); the states already there are
            untouched.
    """
    plain = {key: _as_numpy(value) for key, value in arrays.items()}
    text = json.dumps(dict(meta))
    header = {"meta": text, "sha256": _sha256(plain, text)}
    path = _current(directory, name)

    def write(part: Path) -> None:  # array by array: none is held a second time
        try:
            safetensors.numpy.save_file(plain, part, header)
        except safetensors.SafetensorError as error:
            raise _as_os_error(error) from error

    size = sum(array.nbytes for array in plain.values())
    _write_whole(path, write, size, previous=_previous(directory, name))
    return path


def load_state(directory: Path, name: str) -> tuple[Arrays, dict[str, Any]]:
    """Read the arrays, as numpy, and the metadata of the newest whole state.

    A damaged file is set aside as `NAME.damaged.safetensors`, with a warning, and the state before
    it is read.

    Raises:
        CheckpointError: There is no state of that name, or none of its files is whole.
    """
    damages = []
    for path in (_current(directory, name), _previous(directory, name)):
        if not path.exists():
            continue
        try:
            return _read_whole(path)
        except CheckpointError as damage:
            damages.append(str(damage))
            logger.warning("%s; trying the state before it", damage)
            # Out of the way of the next save, which would make it the previous state.
            with contextlib.suppress(OSError):
                path.replace(path.with_name(f"{name}.damaged.safetensors"))
    if damages:
        raise CheckpointError(
            "; ".join(damages) + "; no whole state is left: restore the folder from a backup "
            "or start the run anew in an empty one"
        )
    raise CheckpointError(
        f"{_current(directory, name)}: no such state; check the run folder, or start the run anew"
    )


def has_state(directory: Path, name: str) -> bool:
    """Whether there is a state to load (it may turn out to be damaged)."""
    return _current(directory, name).exists() or _previous(directory, name).exists()


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON in one atomic step; NaN and infinities, which JSON lacks, become null.

    Raises:
        StorageError: It could not be written; a file already there is untouched.
    """
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    data = (text + "\n").encode()

    def write(part: Path) -> None:
        part.write_bytes(data)

    _write_whole(path, write, len(data))


def _current(directory: Path, name: str) -> Path:
    return directory / f"{name}.safetensors"


def _previous(directory: Path, name: str) -> Path:
    return directory / f"{name}.previous.safetensors"


def _as_numpy(value: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    if not isinstance(value, np.ndarray | np.generic):
        value = value.detach().cpu().numpy()
    return np.asarray(value, order="C")


def _sha256(arrays: Arrays, text: str) -> str:
    """Hash of the metadata and of every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        array = arrays[key]
        digest.update(json.dumps([key, array.dtype.str, array.shape]).encode())
        digest.update(array.data)
    return digest.hexdigest()


def _read_whole(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a state and check it against its own hash."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: torn or damaged ({error})") from None
    if header.get("sha256") != _sha256(arrays, header.get("meta", "")):
        raise CheckpointError(f"{path}: damaged (its contents do not match their SHA-256)")
    return arrays, json.loads(header["meta"])


def _as_os_error(error: Exception) -> OSError:
    """What the system said, which safetensors tells in words only: `… (os error 28)`."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = int(found.group(1)) if found else errno.EIO
    return OSError(number, os.strerror(number))


def _write_whole(
    path: Path, write: Callable[[Path], None], size: int, previous: Path | None = None
) -> None:
    """Put a file at `path` by rename, after it has reached the disk; move the old one first.

    `write` writes it in a folder of its own: safetensors has a temporary file beside the one it
    writes, which stays behind when the process is killed.
    """
    folder = path.with_name(path.name + ".tmp")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with replacing(path, part=folder / path.name, previous=previous) as part:
            write(part)
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "mend this")
        raise StorageError(
            f"{path}: could not be written, {size / 1e6:.1f} MB ({error.strerror or error}); "
            f"{remedy} and run again; what was saved before is untouched"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finite(value: Any) -> Any:
    """`value` with None for every float that is not a number or not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
