"""The SuperLink's process: `flower-superlink`, with another use of its database.

A transaction of an update on a busy disk takes longer than Flower has the others wait; the request
of one that gives up fails, and with it a SuperNode or the run.
"""

import sys
from typing import NoReturn

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.superlink.cli import flower_superlink

from hica.storage import keep_private

DATABASE = (
    ("busy_timeout", "25000"),  # milliseconds; who asks waits for 30 s
    ("cache_size", "-8000"),  # kB of each connection: updates are read once
    ("mmap_size", "0"),  # mapped pages of an update would count as memory of the process
)
"""Settings of SQLite, after Flower's own."""


def main() -> NoReturn:
    """Run the SuperLink with these settings until it is told to end."""
    keep_private()
    vars(sql_mixin)["SQLITE_PRAGMAS"] = (*SQLITE_PRAGMAS, *DATABASE)
    flower_superlink()
    sys.exit()


if __name__ == "__main__":
    main()
