"""Asked: how many bytes each site may send for what the coordinator has asked of it.

The ServerApp notes it before it asks, and the gateway reads it (`hica_server.traffic`). So a
gateway that is started anew knows it, too.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import NonNegativeInt, TypeAdapter

from hica.storage import write_atomically

logger = logging.getLogger("hica.server")


class Asked(NamedTuple):
    """Bytes of answers that one site was asked for."""

    total: NonNegativeInt
    """Of all answers since the study was begun."""
    largest: NonNegativeInt
    """Of the largest one."""


NOTHING = Asked(0, 0)


_TABLE = TypeAdapter(dict[str, Asked])


def read_asked(path: Path) -> dict[str, Asked]:
    """What was asked of each site, by its name; nothing where the file is missing or damaged."""
    try:
        return _TABLE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.error("%s: cannot be read, and begins anew: %s", path, str(error)[:200])
        return {}


def note_asked(path: Path, answers: Mapping[str, int]) -> None:
    """Add the bytes of the answers that sites are about to be asked for, by their names.

    Raises:
        StorageError: The file cannot be written.
    """
    table = read_asked(path)
    for site, size in answers.items():
        before = table.get(site, NOTHING)
        table[site] = Asked(before.total + size, max(before.largest, size))
    write_atomically(path, json.dumps(table).encode())
