import re

import pytest
import typer

from hica import errors
from hica.deployment.command_line import run_app
from hica.errors import EXIT_CODES


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
    assert listed == {0, 130, *(kind.exit_code for kind in FAMILY)}


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
