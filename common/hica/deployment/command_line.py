"""The outermost edge of `hica-client`, `hica-server` and `hica-sim`.

Errors a user can put right are printed without a traceback and end with their exit code; anything
else is a fault in the program and keeps its traceback.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
import typer
from typer.main import get_command

from hica.errors import INTERRUPTED, HicaError
from hica.printable import log_to_stderr, plain


def run_app(
    app: typer.Typer,
    name: str,
    arguments: Sequence[str] | None = None,
    on_interrupt: str = "interrupted",
) -> NoReturn:
    """Run a command line to its end and exit; results go to stdout, all else to stderr.

    Commands end early by `raise typer.Exit(code)`. `name` is what the program is called in its
    help; arguments are by default those of the process; `on_interrupt` is printed after Ctrl-C.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is first imported
    log_to_stderr("%(levelname)s %(name)s: %(message)s")
    sys.exit(_exit_code(app, name, sys.argv[1:] if arguments is None else arguments, on_interrupt))


def _exit_code(app: typer.Typer, name: str, arguments: Sequence[str], on_interrupt: str) -> int:
    """Run the command. Not by `app()`, which turns Ctrl-C into its own exception and exit code."""
    command = get_command(app)
    try:
        with command.make_context(name, list(arguments)) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:  # --help, or a command that chose its exit code
        return end.exit_code
    except click.ClickException as misuse:  # an unknown option, a missing argument
        misuse.show()
        return misuse.exit_code
    except HicaError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print(on_interrupt, file=sys.stderr)
        return INTERRUPTED
    return 0
