"""Bad input, and what is said of it: every row of the tables of docs/bad-input.md, in this process.

A row is what is wrong, the command, its exit code and the sentence that says so. `WRONG` makes it
wrong, in a copy of one good world: `my-study` of a coordinator, `hospital` of a site, `sim.toml`.
"""

import os
import re
import shlex
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image
from tests.coordinator import CA
from typer.main import get_command

from hica_client.cli import app as client_app
from hica_client.cli import main as client
from hica_server.cli import app as server_app
from hica_server.cli import main as server
from hica_simulations.cli import app as simulation_app
from hica_simulations.cli import main as simulate

ROOT = Path(__file__).parents[2]
PROGRAMS = {"hica-client": client, "hica-server": server, "hica-sim": simulate}
APPS = {"hica-client": client_app, "hica-server": server_app, "hica-sim": simulation_app}
ROW = re.compile(r"^\| (.+?) \| `(hica-.+?)` \| (\d+) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8"))

STUDY, SERVER = "my-study/study.toml", "my-study/server.toml"
SITE, MANIFEST, KIT = "hospital/site.toml", "hospital/manifest.csv", "hospital/kit"


def run(command: str) -> int:
    """Run a command in this process; its exit code."""
    program, *arguments = shlex.split(command)
    with pytest.raises(SystemExit) as end:
        PROGRAMS[program](arguments)
    return end.value.code or 0


def put(name: str, content: str | bytes = "") -> Callable[[], object]:
    """Write a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda: Path(name).write_bytes(data)


def pipe(name: str) -> Callable[[], object]:
    """Put a named pipe where a file is."""

    def do() -> None:
        Path(name).unlink()
        os.mkfifo(name)

    return do


def change(name: str, old: str, new: str) -> Callable[[], object]:
    """Replace some text of a file."""

    def do() -> None:
        text = Path(name).read_text(encoding="utf-8")
        assert old in text
        Path(name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return do


def encode(name: str, encoding: str) -> Callable[[], object]:
    """Save a file in another encoding."""
    return lambda: Path(name).write_bytes(Path(name).read_bytes().decode().encode(encoding))


def remove(name: str) -> Callable[[], object]:
    """Take a file away."""
    return lambda: Path(name).unlink()


def row(fields: str) -> Callable[[], object]:
    """A manifest of one row."""
    return put(MANIFEST, f"image,label,patient_id,split,mask\n{fields}\n")


def huge_picture() -> None:
    """A few bytes that say they are a picture of 400 million pixels."""
    Image.new("1", (20_000, 20_000)).save("hospital/0.png")


def text_kit(name: str, old: str, new: str) -> Callable[[], object]:
    return change(f"{KIT}/{name}", old, new)


def other_pair() -> None:
    run("hica-client init other")
    run("hica-client keygen other")
    shutil.copy("other/keys/site.pub", "hospital/keys/site.pub")


def enrolled() -> None:
    run("hica-server enroll my-study hospital/keys/site.pub --name H1")


def revoked() -> None:
    enrolled()
    run("hica-server revoke my-study H1")


def expired() -> None:
    from hica.study import load_study
    from hica_server.provision import provision
    from hica_server.settings import Folder, load_settings

    folder = Path("my-study")
    study, settings = load_study(folder / "study.toml"), load_settings(folder)
    provision(Folder(folder), study, settings, [], renew=True, days=-1)


def finished(content: str) -> Callable[[], object]:
    def do() -> None:
        Path("my-study/run").mkdir()
        put("my-study/run/result.json", content)()

    return do


def changed_export() -> None:
    from hica.export.manifest import write_manifest

    Path("model").mkdir()
    put("model/weights", "learnt")()
    said = dict.fromkeys(("study", "study_sha256", "exported_by", "made", "hica"), "x")
    write_manifest(Path("model"), None, **said)
    put("model/weights", "others")()


def draft() -> None:
    run("hica-server findings draft my-study --source template --out findings.toml")


def small_mask() -> None:
    Image.new("1", (8, 8)).save("hospital/mask.png")
    row("0.png,normal,p0,train,mask.png")()


def nameless_labels() -> None:
    Path("export").mkdir()
    put("labels.csv", "label\nbenign\n")()


def lost_secret() -> None:
    Path("export").mkdir()
    image = Path("images", f"p{'0' * 16}", f"{'0' * 24}.png")
    (Path("hospital") / image.parent).mkdir(parents=True)
    shutil.copy("hospital/0.png", Path("hospital") / image)
    row(f"{image},normal,p0,train,")()


def damaged_draw() -> None:
    Path("hospital/state/0123456789abcdef").mkdir(parents=True)
    put("hospital/state/0123456789abcdef/draw.json", "{}")()


def state(name: str) -> Callable[[], object]:
    """A record with a line that nobody has written there."""

    def do() -> None:
        Path("hospital/state").mkdir()
        put(f"hospital/state/{name}", "{}\n")()

    return do


def more_of_a_site() -> None:
    enrolled()
    change("my-study/federation/sites.json", '"public_key"', '"color": 1, "public_key"')()


NOTHING: Callable[[], object] = lambda: None  # noqa: E731

WRONG: dict[str, Callable[[], object]] = {
    "no such site file": NOTHING,
    "a folder without a site file": NOTHING,
    "an empty argument": NOTHING,
    "a path through a file": NOTHING,
    "no such study folder": NOTHING,
    "nothing to stop, as there is no such folder": NOTHING,
    "a site's folder for a coordinator's": NOTHING,
    "another file for a study folder": NOTHING,
    "a folder that is no run": NOTHING,
    "no such run": NOTHING,
    "another suffix of a model": finished("{}"),
    "an exported folder that is not empty": NOTHING,
    "a folder that is no export": NOTHING,
    "two signers to verify by": NOTHING,
    "an export before the study is over": NOTHING,
    "an exported file that was changed": changed_export,
    "a log that there is not": NOTHING,
    "a hash of too few digits": NOTHING,
    "a hash of another study": NOTHING,
    "an approval that was never given": NOTHING,
    "a setting without a value": NOTHING,
    "a setting that there is not": NOTHING,
    "a number that is a word": NOTHING,
    "a number that never ends": NOTHING,
    "more rounds than can be planned": NOTHING,
    "an unknown verb": NOTHING,
    "an unknown option": NOTHING,
    "no days": NOTHING,
    "a site name with a colon": NOTHING,
    "no such device": NOTHING,
    "an unknown engine": NOTHING,
    "shots that are no numbers": NOTHING,
    "an unknown table": NOTHING,
    "a file for a run directory": NOTHING,
    "a folder that there is already": NOTHING,
    "a file for a new folder": NOTHING,
    "a folder of images without images": NOTHING,
    "a study in UTF-16": encode(STUDY, "utf-16"),
    "a study that is no TOML": put(STUDY, "[study\nname = 1"),
    "a study with a date for a name": change(STUDY, 'name = "', 'name = 2026-01-01 # "'),
    "a name with a character that is not allowed": change(STUDY, 'name = "', 'name = "?'),
    "a hash that is too short": NOTHING,
    "a way of training that there is not": NOTHING,
    "brackets without end": put(STUDY, "a = " + "[" * 100_000),
    "server settings in UTF-16": encode(SERVER, "utf-16"),
    "an address with https": change(SERVER, 'name = "', 'name = "https://'),
    "a study without sites": NOTHING,
    "a scenario in UTF-16": encode("sim.toml", "utf-16"),
    "a simulated site with a blank in its name": change(
        "sim.toml", '[[simulation.sites]]\nname = "', '[[simulation.sites]]\nname = "a '
    ),
    "a site file in UTF-16": encode(SITE, "utf-16"),
    "a pipe for a site file": pipe(SITE),
    "a site file without a manifest": change(SITE, "manifest =", "# manifest ="),
    "findings that nobody has read": draft,
    "no manifest": remove(MANIFEST),
    "a folder for a manifest": change(SITE, 'manifest = "', 'manifest = "kit" # "'),
    "a pipe for a manifest": pipe(MANIFEST),
    "a manifest in Latin-1": put(MANIFEST, "image,label\n0.png,h\u00e4matom\n".encode("latin-1")),
    "a manifest with bars": put(MANIFEST, "image|label\n0.png|normal\n"),
    "a workbook for a manifest": put(MANIFEST, b"PK\x03\x04"),
    "a quote that is not closed": put(MANIFEST, 'image,label\n0.png,"normal\n1.png,benign\n'),
    "a column twice": put(MANIFEST, "image,label,Label\n0.png,normal,benign\n"),
    "a slip of the pen in a column": put(MANIFEST, "image,patient\n0.png,p0\n"),
    "a folder for an image": row("kit,normal,p0,train,"),
    "a folder for a mask": row("0.png,normal,p0,train,kit"),
    "an image that there is not": row("9.png,normal,p0,train,"),
    "an image twice": row("0.png,normal,p0,train,\n0.png,normal,p0,train,"),
    "a split that there is not": row("0.png,normal,p0,validation,"),
    "a label that is no class": row("0.png,nromal,p0,train,"),
    "an image that is text": put("hospital/0.png", "no image"),
    "an image that is cut short": lambda: put(
        "hospital/0.png", Path("hospital/0.png").read_bytes()[:200]
    )(),
    "an image of too many pixels": huge_picture,
    "a mask of another size": small_mask,
    "an image that shows nothing": lambda: Image.new("L", (32, 32)).save("hospital/0.png"),
    "one picture with two labels": lambda: shutil.copy("hospital/0.png", "hospital/1.png"),
    "one patient for all": lambda: Path(MANIFEST).write_text(
        re.sub(r",p\d,(train|test),", ",ANON,,", Path(MANIFEST).read_text())
    ),
    "a test of one class": change(MANIFEST, "2.png,normal,p2,test", "2.png,,p2,"),
    "a contact sheet in place of an image": NOTHING,
    "an export that there is not": NOTHING,
    "the site's own folder for an export": NOTHING,
    "a table of labels without keys": nameless_labels,
    "a secret of pseudonyms that is lost": lost_secret,
    "a patient that there is not": NOTHING,
    "a patient whose file is away": remove("hospital/0.png"),
    "a certificate that is garbage": put(f"{KIT}/ca.crt", "garbage"),
    "a foreign certificate": put(f"{KIT}/ca.crt", CA),
    "a kit of another hospital": text_kit("kit.json", '"site": "H1"', '"site": "H2"'),
    "a kit whose study was changed": text_kit("study.json", "benign", "bengin"),
    "a kit that is no JSON": put(f"{KIT}/kit.json", "{"),
    "a kit without its study": remove(f"{KIT}/study.json"),
    "no kit": lambda: shutil.rmtree(KIT),
    "a study that is not approved": NOTHING,
    "no key": remove("hospital/keys/site"),
    "a key that others can read": lambda: Path("hospital/keys/site").chmod(0o644),
    "the public key of another site": other_pair,
    "a second key": NOTHING,
    "a private key to enroll": NOTHING,
    "a folder for a key": NOTHING,
    "a key that was revoked": revoked,
    "a key for two names": enrolled,
    "a site that was never enrolled": NOTHING,
    "an expired certificate": expired,
    "a certificate that is garbage, at the coordinator": put(
        "my-study/federation/server.crt", "garbage"
    ),
    "approvals that were edited": state("approvals.jsonl"),
    "an audit log that was edited": state("audit.jsonl"),
    "a ledger that was edited": state("ledger.jsonl"),
    "a draw that was edited, when a patient withdraws": damaged_draw,
    "a list of sites that is no JSON": put("my-study/federation/sites.json", "{"),
    "a list of sites with a key too many": more_of_a_site,
    "progress that is no JSON": lambda: (
        Path("my-study/run").mkdir(),
        put("my-study/run/progress.json", "{")(),
    ),
    "a result that is no JSON": finished("{"),
    "a file where the state should be": put("hospital/state"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator's folder, provisioned for H1, and the folder of H1 with kit, key and images."""
    folder = tmp_path_factory.mktemp("world")
    here = Path.cwd()
    os.chdir(folder)
    try:
        run("hica-server init my-study")
        run("hica-server provision my-study H1")
        run("hica-client init hospital")
        change(SITE, 'name = "', 'name = "H1" # "')()
        with zipfile.ZipFile("my-study/kits/H1.zip") as kit:
            kit.extractall(KIT)
        run("hica-client keygen hospital")
        draws = np.random.default_rng(0)
        lines = ["image,label,patient_id,split,mask"]
        for number in range(4):
            pixels = draws.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(f"hospital/{number}.png")
            label, split = ("normal", "benign")[number % 2], ("train", "test")[number // 2]
            lines.append(f"{number}.png,{label},p{number},{split},")
        Path(MANIFEST).write_text("\n".join(lines) + "\n")
        shutil.copy(ROOT / "simulations" / "studies" / "phantoms.toml", "sim.toml")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def inside(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world, in which the command runs; nothing is connected to."""

    def no_connection(*_: object) -> None:
        raise ConnectionRefusedError("a test connects to nobody")

    shutil.copytree(world, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setattr(socket.socket, "connect", no_connection)
    return tmp_path / "w"


def words(text: str, inside: Path) -> str:
    """What was printed, in one line, its folder left out."""
    return " ".join(text.replace(f"{inside}/", "").replace(str(inside), ".").split())


@pytest.mark.parametrize(("wrong", "command", "code", "sentence"), ROWS)
def test_what_is_said_of_bad_input(
    inside: Path, capsys: pytest.CaptureFixture[str], wrong: str, command: str, code: str, sentence
):
    WRONG[wrong]()
    capsys.readouterr()
    assert run(command) == int(code)
    said = words("".join(capsys.readouterr()), inside)
    for part in sentence.replace("\\|", "|").split(" … "):  # what differs is left out
        assert part in said
        said = said.partition(part)[2]


def test_every_way_to_go_wrong_has_a_row():
    assert [row[0] for row in ROWS] == list(WRONG)
    assert len(ROWS) >= 60


def helps(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every help of a program, with the words that ask for it."""
    told = [command.help, command.epilog, *(getattr(each, "help", "") for each in command.params)]
    yield words, " ".join(filter(None, told))
    for name, each in getattr(command, "commands", {}).items():
        yield from helps(each, (*words, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_word_in_brackets_is_lost_from_a_help(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for words, written in helps(get_command(APPS[program]), ()):
        with pytest.raises(SystemExit):
            PROGRAMS[program]([*words, "--help"])
        shown = capsys.readouterr().out
        for word in re.findall(r"\[+[a-z_.]+\]+", written):
            assert word in shown, (words, word)
