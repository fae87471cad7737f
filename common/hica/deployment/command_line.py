"""The outermost edge of `hica-client`, `hica-server` and `hica-sim`.

Errors a user can put right are printed without a traceback and end with their exit code; anything
else is a fault in the program and keeps its traceback.
"""

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import click
import typer
from rich.markup import escape
from typer.main import get_command
from typer.utils import get_params_from_function

from hica.errors import INTERRUPTED, NO_READER, HicaError
from hica.printable import log_to_stderr, plain


def print_versions(wanted: bool) -> None:
    """Print the versions that coordinator and hospitals must have in common, and exit."""
    if wanted:
        from hica.deployment.bundle import BUNDLE_SHA256

        print(f"hica {version('hica')}\nflwr {version('flwr')}\nbundle {BUNDLE_SHA256}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=print_versions,
        is_eager=True,
        help="Print the versions of hica and Flower and the hash of the bundle, and exit.",
    ),
]
"""Option of every program, for the callback of its app."""


def run_app(
    app: typer.Typer,
    name: str,
    arguments: Sequence[str] | None = None,
    on_interrupt: str = "interrupted",
    supervised: bool = False,
) -> NoReturn:
    """Run a command line to its end and exit; results go to stdout, all else to stderr.

    Commands end early by `raise typer.Exit(code)`. `name` is what the program is called in its
    help; arguments are by default those of the process; `on_interrupt` is printed after Ctrl-C.
    What is logged has the time before it where no terminal shows it, and no supervisor adds it.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is first imported
    time = "" if supervised or sys.stderr.isatty() else "%(asctime)s "
    log_to_stderr(f"{time}%(levelname)s %(name)s: %(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold what no letter stands for
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_exit_code(app, name, sys.argv[1:] if arguments is None else arguments, on_interrupt))


def _exit_code(app: typer.Typer, name: str, arguments: Sequence[str], on_interrupt: str) -> int:
    """Run the command. Not by `app()`, which turns Ctrl-C into its own exception and exit code."""
    command = get_command(app)
    _show_helps_as_written(command)
    try:
        with command.make_context(name, list(arguments)) as context:
            command.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has gone can still be told of
    except click.exceptions.Exit as end:  # --help, or a command that chose its exit code
        return end.exit_code
    except click.ClickException as misuse:  # an unknown option, a missing argument
        misuse.show()
        return misuse.exit_code
    except BrokenPipeError:
        return _without_reader()
    except SystemExit as end:  # rich ends the process itself where its reader has gone
        if isinstance(end.__context__, BrokenPipeError):
            return _without_reader()
        raise
    except HicaError as error:
        print(plain(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print(on_interrupt, file=sys.stderr)
        return INTERRUPTED
    return 0


def _without_reader() -> int:
    """End quietly, as `head` and a pager that is left expect; Python would print at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return NO_READER


def _show_helps_as_written(command: click.Command) -> None:
    """Keep rich from taking `[server]` of a help for markup, and click from losing helps.

    click 8.5 has a help of arguments, too, and typer 0.20 does not hand it what it was given.
    """
    written = get_params_from_function(command.callback) if command.callback is not None else {}
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.name in written:
            parameter.help = written[parameter.name].default.help
        text = getattr(parameter, "help", None)
        if text:
            parameter.help = escape(text)
    command.help = command.help and escape(command.help)
    command.epilog = command.epilog and escape(command.epilog)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _show_helps_as_written(each)
