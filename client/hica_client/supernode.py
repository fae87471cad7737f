"""Flower's SuperNode, except that its process ends when its connection does.

    python -m hica_client.supernode --superlink ...      the arguments of flower-supernode

Once the coordinator has answered with something unforeseen (an error 500 on a full disk is enough),
Flower 1.41 leaves its main loop, but the process stays, held by the thread of its own HTTP server:
it looks alive and never asks for work again. Here it ends, so that it can be started anew.
"""

import os
import sys
import traceback
from importlib.metadata import entry_points
from typing import NoReturn

from hica.storage import keep_private


def main() -> NoReturn:
    """Run the installed `flower-supernode` and end with it, threads or not."""
    keep_private()
    (script,) = entry_points(group="console_scripts", name="flower-supernode")
    code = 1  # the script never returns in good order: it exits
    try:
        script.load()()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
