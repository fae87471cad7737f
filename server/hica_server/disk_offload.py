"""Disk offload: large updates wait on disk until they are aggregated, array by array.

All updates of a round are needed at once, sorted by site, so that the average does not depend on
who answered first. In memory they would take as much as there are sites.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hica.errors import StorageError
from hica.wire.messages import Reply

LARGE = 16 * 2**20
"""Bytes of arrays from which on a reply is kept on disk."""


class OffloadedArrays(Mapping[str, NDArray[Any]]):
    """Arrays in a file in `folder` without a name, which is gone when they are, or the process is.

    Raises:
        OSError: It could not be written.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  open as long as we are
        self._places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        for name, array in arrays.items():
            self._places[name] = (self._file.tell(), array.dtype, array.shape)
            self._file.write(np.ascontiguousarray(array).data)
        self._file.flush()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array; what is read is not kept."""
        start, dtype, shape = self._places[name]
        self._file.seek(start)
        return np.fromfile(self._file, dtype, math.prod(shape)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def offloaded(reply: Reply, folder: Path) -> Reply:
    """The reply, its arrays on disk in `folder` where they are large.

    Raises:
        StorageError: The disk is full.
    """
    if sum(array.nbytes for array in reply.arrays.values()) < LARGE:
        return reply
    try:
        return replace(reply, arrays=OffloadedArrays(reply.arrays, folder))
    except OSError as error:
        raise StorageError(
            f"{folder}: the update of {reply.site} could not be kept ({error.strerror}): free "
            "space there and run again; what was saved before is untouched"
        ) from error
