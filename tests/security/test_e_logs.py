"""E, 15: logs and consoles show what came from outside as it is safe."""

import logging
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console

from hica.deployment.service_output import ServiceOutput
from hica.errors import MessageError
from hica_server.console import final_table
from hica_server.deployed import logging_to

EVIL = "key\x1b[2J\x1b]0;owned\x07\r\nERROR hica.client: all is well\u202e" + "x" * 100_000
FORGED = "ERROR hica.client: all is well"

RUNNER = """
import logging, sys
from pathlib import Path
from hica_client import flower_runner
evil = sys.stdin.read()
log = logging.getLogger("hica.client")
def app(site_file):
    log.warning("%s refused: %s", evil, evil)
    return None
def serve(*arguments):
    try:
        raise RuntimeError(evil)
    except RuntimeError:
        log.exception("the answer to a %s failed", evil)
    raise SystemExit(0)
flower_runner.local_app, flower_runner.serve = app, serve
Path("secret").write_bytes(b"")
flower_runner.main(["site.toml", "--runtime", "127.0.0.1:1", "--secret", "secret"])
"""

COMMAND = """
import logging, sys
import typer
from hica.deployment.command_line import run_app
from hica.errors import MessageError
evil = sys.stdin.read()
app = typer.Typer()
@app.command()
def do() -> None:
    logging.getLogger("hica.server").warning("%s", evil)
    raise MessageError(evil[:200])
run_app(app, "do", [])
"""


def assert_plain(text):
    """No line but those that are meant, none too long, and nothing that steers a terminal."""
    lines = text.split("\n")
    assert not any(line.startswith(FORGED) for line in lines)
    assert all(len(line) < 5000 for line in lines)
    assert all(sign.isprintable() or sign == "\n" for sign in text)


def test_15_the_sites_runner_logs_what_came_from_outside_as_it_is_safe(tmp_path):
    """Keys of a study reach the site's log as the coordinator wrote them, escape codes and all."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=EVIL, text=True, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert_plain(done.stderr)
    assert "WARNING key�[2J�]0;owned��\\nERROR hica.client" in done.stderr
    assert "    RuntimeError: key�[2J" in done.stderr


def test_15_every_command_prints_and_logs_what_came_from_outside_as_it_is_safe(tmp_path):
    """An error of the other side, in its own words, ends a command."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], input=EVIL, text=True, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 5
    log, _, error = done.stderr.partition("error: ")
    assert_plain(log)
    assert all(sign.isprintable() or sign == "\n" for sign in error)


def test_15_the_coordinators_log_holds_a_record_as_one_line(tmp_path):
    """A reason in a site's words forges a line of the coordinator's log."""
    path = tmp_path / "logs" / "serverapp.log"
    log = logging.getLogger("hica.server")
    with logging_to(path):
        log.warning("b refused: %s", EVIL)
        try:
            raise MessageError(EVIL)
        except MessageError:
            log.exception("the run has failed")
        log.warning("after")
    text = path.read_text()
    assert_plain(text)
    records = [line for line in text.splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert len(records) == 3
    assert all(line.startswith("    ") for line in text.splitlines() if line not in records)


def test_15_what_flowers_processes_print_is_kept_without_control_signs(tmp_path):
    """Flower's own processes print what came over the network, past every formatter of ours."""
    read, write = os.pipe()
    heard: list[str] = []
    output = ServiceOutput(os.fdopen(read, "rb", 0), tmp_path / "a.log", heard.append)
    os.write(write, "\x1b[92mINFO\x1b[0m \x1b]0;owned\x07\u202e\rrun\n".encode())
    os.close(write)
    output.close()
    assert heard == ["INFO �]0;owned���run"]
    assert "\x1b" not in (tmp_path / "a.log").read_text()


def test_15_no_other_formatter_is_made_anywhere():
    """The next log that somebody adds goes through the same one."""
    root = Path(__file__).parents[2]
    places = [root / "common", root / "client", root / "server", root / "simulations"]
    made = re.compile(r"logging\.Formatter\(|basicConfig\(|StreamHandler\(|FileHandler\(")
    found = {
        file.relative_to(root).as_posix()
        for place in places
        for file in place.rglob("*.py")
        if made.search(file.read_text())
    }
    assert found == {"common/hica/printable.py", "server/hica_server/deployed.py"}
    assert "PlainFormatter(" in (root / "server/hica_server/deployed.py").read_text()


def test_15_markup_in_a_result_is_shown_and_not_obeyed():
    """A name is written as markup of the console's."""
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    metrics = {"accuracy": interval, "balanced_accuracy": interval, "auroc": None}
    result = {"study": "[red]x[/]", "seed": 0, "baselines": {}, "final": metrics}
    out = StringIO()
    Console(file=out, width=100).print(final_table(result))
    assert "[red]x[/], seed 0" in out.getvalue()
