import re
import subprocess
import sys
from importlib.metadata import version
from typing import Annotated

import pytest
import typer

import hica_client.cli as hica_client
import hica_server.cli as hica_server
import hica_simulations.cli as hica_simulations
from hica import errors
from hica.deployment.command_line import run_app
from hica.errors import EXIT_CODES, NO_READER


def app_that(behaves) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, add_completion=False)

    @app.command()
    def act(number: int = 0) -> None:
        behaves()

    @app.command()
    def other() -> None: ...

    return app


def raising(error: BaseException):
    def behave() -> None:
        raise error

    return behave


def exit_code(behaves, *arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        run_app(app_that(behaves), "tool", arguments or ["act"], on_interrupt="stopped; run again")
    return end.value.code


FAMILY = [errors.HicaError, *errors.HicaError.__subclasses__()]


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_a_user_can_mend_is_one_line_and_its_exit_code(kind, capsys):
    assert exit_code(raising(kind("manifest.csv: line 3"))) == kind.exit_code
    assert capsys.readouterr() == ("", "error: manifest.csv: line 3\n")


def test_the_help_lists_the_exit_code_of_every_error():
    listed = {int(number) for number in re.findall(r"\b(\d+) ", EXIT_CODES)}
    assert listed == {0, 130, 141, *(kind.exit_code for kind in FAMILY)}


def test_ctrl_c_is_130_and_says_what_to_do(capsys):
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "stopped; run again\n")


def test_a_command_that_ends_well_is_0(capsys):
    assert exit_code(lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_a_command_may_choose_its_exit_code():
    assert exit_code(raising(typer.Exit(3))) == 3


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_app(app_that(raising(ZeroDivisionError())), "tool", ["act"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["act", "--number", "x"], "'x' is not a valid integer"),
        (["act", "--nubmer", "1"], "No such option '--nubmer'"),
        (["atc"], "No such command 'atc'"),
    ],
)
def test_misuse_is_2_and_says_how_the_tool_is_used(arguments, said, capsys):
    assert exit_code(raising(AssertionError("ran")), *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: tool" in err
    assert said in err


def test_help_is_0(capsys):
    assert exit_code(raising(AssertionError("ran")), "--help") == 0
    assert "other" in capsys.readouterr().out


WARNED = "WARNING hica.tool: disk is nearly full"


@pytest.mark.parametrize("supervised", [False, True])
def test_a_log_that_is_no_terminal_has_the_time_in_utc(supervised):
    code = (
        "import logging, typer\n"
        "from hica.deployment.command_line import run_app\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def act(): logging.getLogger('hica.tool').warning('disk is nearly full')\n"
        f"run_app(app, 'tool', [], supervised={supervised})\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    time = "" if supervised else r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
    assert re.fullmatch(time + re.escape(WARNED) + "\n", said)


@pytest.mark.parametrize("program", [hica_client, hica_server, hica_simulations])
def test_every_program_tells_its_versions(program, capsys):
    with pytest.raises(SystemExit) as end:
        program.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"hica {version('hica')}\nflwr ")


@pytest.mark.parametrize("many", ["print('line')", "Console().print('line')"])
def test_a_reader_that_has_gone_ends_the_command_quietly(many):
    code = (
        "import typer; from rich.console import Console; "
        "from hica.deployment.command_line import run_app\n"
        "app = typer.Typer()\n"
        f"@app.command()\ndef act():\n    for _ in range(100_000): {many}\n"
        "run_app(app, 'tool', [])"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == NO_READER


def test_a_help_is_shown_as_it_is_written(capsys):
    app = typer.Typer(add_completion=False, help="Of [tool].")
    argument = typer.Argument(help="A [name] to act on.")

    @app.command(epilog="See [epilog].")
    def act(
        name: Annotated[str, argument],
        option: Annotated[str, typer.Option(help="As in [section].")] = "",
    ) -> None:
        """Act on [server]."""

    with pytest.raises(SystemExit):
        run_app(app, "tool", ["--help"])
    shown = capsys.readouterr().out
    for words in ("[server]", "A [name] to act on.", "As in [section].", "See [epilog]."):
        assert words in shown


def test_what_no_letter_stands_for_is_printed_all_the_same(capfd):
    assert exit_code(lambda: print("a\udcffb")) == 0
    assert "a\\udcffb" in capfd.readouterr().out
