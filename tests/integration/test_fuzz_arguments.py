"""Wrong arguments of every kind to every verb: an error in words, never a traceback.

500 calls in this process, seeded. A verb's own code is counted as reached when a call gets through
the command line's own checks. What would train, serve or wait is put out of reach.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from typer.main import get_command

from hica import errors
from hica.errors import ConfigurationError
from hica_client.cli import app as client_app
from hica_client.cli import main as client
from hica_server.cli import app as server_app
from hica_server.cli import main as server
from hica_simulations.cli import app as simulation_app
from hica_simulations.cli import main as simulate

CALLS = 500
PROGRAMS = {
    "hica-client": (client, client_app),
    "hica-server": (server, server_app),
    "hica-sim": (simulate, simulation_app),
}
CODES = {0, errors.INTERRUPTED} | {kind.exit_code for kind in errors.HicaError.__subclasses__()}
"""Those of the documentation but 1, a fault in the program."""
LONG_RUNNING = (
    "hica_client.operation.run",
    "hica_server.operation.run",
    "hica_simulations.run.simulate",
    "hica_simulations.experiments.baselines.every_run.simulate_with_baselines",
    "hica_simulations.experiments.baselines.compare.compare",
    "hica_simulations.deployment.federate",
    "hica_simulations.experiments.audit.run.audit",
    "hica_simulations.experiments.tables.run_cells.run_cells",
    "hica_simulations.experiments.tables.results.rebuild",
    "hica_server.summary.rehearse",
    "hica_client.preflight_study.adapted_tower",
    "hica_client.review.serving.serve",
    "hica_client.review.suggest.suggestions",
)
WORDS = (
    *("", " ", "nowhere", "0", "-1", "1e400", "9" * 400, "nan", "x" * 300, "a/b", "..", "."),
    *("ä€\u202e", "\ud800"[:0] + "\udcff", "\x1b[2J", "[red]", "{}", "%s", "--", "-x", "None"),
    *("hospital", "hospital/site.toml", "hospital/manifest.csv", "hospital/kit", "hospital/0.png"),
    *("study", "study/study.toml", "study/server.toml", "study/study.toml/deeper", "sim.toml"),
    *("latin1.toml", "utf16.toml", "deep.toml", "empty", "loop", "study/federation/server.crt"),
    *("alignment.shots=-1", "alignment.rounds=999999999999", "a.b.c=[", "study.seed=" + "9" * 5000),
    *("0" * 12, "F" * 64, "north", "cuda:9", "template", "new/of/it", "model.safetensors"),
)


def commands(
    command: click.Command, name: tuple[str, ...]
) -> Iterator[tuple[tuple, click.Command]]:
    """Every verb of a program, with the words that call it."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from commands(each, (*name, str(each.name)))
    else:
        yield name, command


def arguments(command: click.Command, draws: random.Random) -> list[str]:
    """Something for most parameters; sometimes one too many."""
    given: list[str] = []
    for parameter in command.params:
        if parameter.name == "follow":  # waits for lines without end
            continue
        wanted = draws.random() < (0.97 if parameter.required else 0.35)
        if isinstance(parameter, click.Option) and wanted:
            given.append(draws.choice(parameter.opts))
            if parameter.is_flag:
                continue
        if wanted:
            given.append(_value(parameter, draws))
    return given + [draws.choice(WORDS)] * (draws.random() < 0.03)


def _value(parameter: click.Parameter, draws: random.Random) -> str:
    """A word of any kind, or one that gets through the command line's own checks."""
    if draws.random() < 0.6:
        if isinstance(parameter.type, click.IntRange | click.types.IntParamType):
            return draws.choice(("1", "7", "41", "999999999"))
        if isinstance(parameter.type, click.Choice):
            return str(getattr(draws.choice(list(parameter.type.choices)), "value", "template"))
        if parameter.name in ("site_file", "study_file", "study", "studies"):
            return draws.choice(("hospital", "study", "sim.toml", "hospital/site.toml"))
        if parameter.name in ("folder", "run"):
            return draws.choice(("study", "study/server.toml", "hospital", "empty"))
    return draws.choice(WORDS)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_site_below) -> Path:
    """A folder of good and bad files to choose from; whatever takes long ends at once."""
    monkeypatch.chdir(tmp_path)
    with ended():
        server(["init", "study"])
    with ended():
        server(["provision", "study", "H1"])
    draw_site_below(tmp_path, "hospital", images=4)
    root = Path(__file__).parents[2]
    shutil.copy(root / "simulations" / "studies" / "phantoms.toml", "sim.toml")
    Path("latin1.toml").write_bytes("name = 'ä'".encode("latin-1"))
    Path("utf16.toml").write_text("[study]", encoding="utf-16")
    Path("deep.toml").write_text("a = " + "[" * 50_000)
    Path("empty").mkdir()
    Path("loop").symlink_to("loop")

    def would_start(*_: object, **__: object) -> None:
        raise ConfigurationError("here the long work would begin")

    for name in LONG_RUNNING:
        monkeypatch.setattr(name, would_start)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    return tmp_path


@contextmanager
def ended() -> Iterator[pytest.ExceptionInfo[SystemExit]]:
    with pytest.raises(SystemExit) as end:
        yield end


def counting(reached: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the calls of every verb's own code."""
    invoke = click.Context.invoke

    def counted(self: click.Context, callback: Callable, /, *args: object, **kwargs: object):
        if not isinstance(self.command, click.Group):
            reached[str(self.command.name)] += 1
        return invoke(self, callback, *args, **kwargs)

    monkeypatch.setattr(click.Context, "invoke", counted)


def test_no_argument_leads_to_a_traceback(world, monkeypatch, capfd):
    draws = random.Random(20261127)
    verbs = [
        (program, words, command)
        for program, (_, app) in PROGRAMS.items()
        for words, command in commands(get_command(app), ())
    ]
    reached: Counter[str] = Counter()
    counting(reached, monkeypatch)
    codes: Counter[int] = Counter()
    faults: list[str] = []
    for number in range(CALLS):
        program, words, command = verbs[number % len(verbs)]
        given = [*words, *arguments(command, draws)]
        try:
            PROGRAMS[program][0](given)
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            faults.append(f"{program} {given}: {type(error).__name__}: {error}")
            continue
        if code not in CODES:
            faults.append(f"{program} {given}: exit code {code}")
        codes[code] += 1
    capfd.readouterr()
    assert not faults, "\n".join(faults)
    assert sum(reached.values()) >= CALLS // 4, reached
    assert set(reached) == {str(command.name) for _, _, command in verbs}, reached
    assert codes[0] and codes[2]
