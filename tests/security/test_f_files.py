"""F: code and files. What comes with a checkpoint, a study or an install is not trusted."""

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from flwr.app import Message
from safetensors.torch import save_file

from hica.cohort.region_method import region_method
from hica.errors import CheckpointError, ConfigurationError, HicaError
from hica.images.cache import file_sha256
from hica.towers.from_study import adapted_tower
from hica.wire.messages import Kind, Request
from hica.wire.records import decode_reply, encode_request
from hica_client import flower_runner, supernode
from hica_client.app import app
from hica_client.cli import main as client
from hica_client.site import load_site
from hica_server import gateway
from hica_server.cli import main as server
from hica_server.publication import refined_text_tower
from hica_server.settings import load_settings
from hica_server.superlink import __main__ as superlink
from hica_simulations.grid import InProcessGrid

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
RUNS = (
    "from pathlib import Path\nPath({ran!r}).touch()\nclass Tokenizer: pass\nclass Config: pass\n"
)


def folder_of_a_pair(folder: Path, text: dict, vision: dict = VISION, **model: object) -> None:
    """A pair of open_clip in a folder, with a Python file that leaves a mark where it runs."""
    folder.mkdir()
    table = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {**TEXT, **text}, **model}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": table}))
    (folder / "evil.py").write_text(RUNS.format(ran=str(folder.parent / "ran")))
    open_clip.add_model_config(_plain_config(folder.parent))
    state = open_clip.create_model("mini-plain", force_custom_text=True).state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        folder / "open_clip_model.safetensors",
    )


def _plain_config(folder: Path) -> Path:
    path = folder / "mini-plain.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}))
    return path


# --- F17 -----------------------------------------------------------------------------------------


def test_f17_a_tokenizer_that_comes_with_a_checkpoint_runs_no_code(
    toy_study, tmp_path, monkeypatch
):
    """A folder with a checkpoint makes the coordinator run a Python file of its own."""
    monkeypatch.chdir(tmp_path)
    own = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    folder_of_a_pair(tmp_path / "pair", own)
    brought = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    (tmp_path / "pair" / "tokenizer_config.json").write_text(json.dumps(brought))
    study = toy_study("model.image=local-dir:pair", "model.text=same")
    with pytest.raises(CheckpointError) as error:
        refined_text_tower(study, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert "open_clip_config.json: trust_remote_code: would run code" in str(error.value)


@pytest.mark.parametrize(
    ("text", "vision", "model", "named"),
    [
        ({"tokenizer_kwargs": {"use_fast": False}}, {}, {}, "tokenizer_kwargs.use_fast"),
        ({"hf_model_config": {}}, {}, {}, "text_cfg.hf_model_config: unknown key"),
        ({}, {"timm_model_name": "hf-hub:owner/evil"}, {}, "vision_cfg.timm_model_name"),
        ({}, {"layers": 10**9}, {}, "vision_cfg.layers"),
        ({"norm_kwargs": {"device": "cuda"}}, {}, {}, "norm_kwargs.device: unknown key"),
        ({}, {}, {"loader": "evil"}, "model_cfg.loader: unknown key"),
        ({"hf_model_name": "owner/evil"}, {}, {}, "config.json"),
    ],
)
def test_f17_only_listed_keys_of_a_configuration_are_read(
    toy_study, tmp_path, monkeypatch, text, vision, model, named
):
    """A key that nobody has thought of is handed to a library, which does what it says."""
    monkeypatch.chdir(tmp_path)
    folder_of_a_pair(tmp_path / "pair", text, {**VISION, **vision}, **model)
    study = toy_study("model.image=local-dir:pair")
    with pytest.raises(CheckpointError) as error:
        adapted_tower(study, tmp_path, CPU)
    assert named in str(error.value)


@pytest.mark.parametrize("kind", ["own-kind", "bert"])
def test_f17_a_text_model_that_comes_with_code_is_refused_without_asking_anybody(
    toy_study, tmp_path, monkeypatch, kind
):
    """Whoever checks a study at a terminal is asked by a library whether code may run."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    folder_of_a_pair(tmp_path / "pair", {"hf_model_name": "pair", "hf_tokenizer_name": "pair"})
    config = {"model_type": kind, "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "pair" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: (model_type = 'own-kind'|auto_map)"):
        refined_text_tower(toy_study("model.image=local-dir:pair", "model.text=same"), tmp_path)
    assert not asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("config.json", {"attn_implementation": "owner/evil"}, "attn_implementation"),
        ("config.json", {"vision_config": {"_attn_implementation": {"": "a/b"}}}, "implementation"),
        ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("adapter_config.json", {"base_model_name_or_path": "owner/evil"}, "another model"),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../keys/site"}},
            "a file in another folder",
        ),
    ],
)
def test_f17_a_folder_of_a_region_model_is_looked_through(
    toy_study, tmp_path, file, content, named
):
    """A region model's folder makes a hospital fetch code, or read files outside the folder."""
    (tmp_path / "sam").mkdir()
    (tmp_path / "sam" / "config.json").write_text("{}")
    (tmp_path / "sam" / file).write_text(json.dumps(content))
    study = toy_study("regions.method=hf-sam", "regions.checkpoint=sam")
    tower = adapted_tower(study, tmp_path, CPU).tower
    with pytest.raises(CheckpointError) as error:
        _ = region_method(study, tmp_path, tower, CPU).version
    assert file in str(error.value) and named in str(error.value)


def test_f17_no_loader_of_ours_is_unlocked():
    """A loader that unpickles, or that is not told to run no code, is written some day."""
    seen = []
    for path in sorted(
        path
        for room in ("common", "client", "server", "simulations")
        for path in (ROOT / room).rglob("*.py")
    ):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                seen += [f"{path}:{call.lineno}: {why}" for why in _unlocked(call)]
    assert seen == []


def _unlocked(call: ast.Call) -> list[str]:
    """Why a call could make code run; empty where it cannot."""
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    never = ("pickle.load", "pickle.loads", "yaml.load", "eval", "exec", "torch.hub.load")
    # Of the simulation's own start kits; zipfile keeps members inside, tarfile and shutil need not.
    unpacks = name.endswith((".extractall", ".unpack_archive")) and name != "kit.extractall"
    return [
        *([name] if unpacks else []),
        *([name] if name in never else []),
        *([name] if name == "torch.load" and given.get("weights_only") != "True" else []),
        *([name] if given.get("allow_pickle", "False") != "False" else []),
        *([name] if given.get("trust_remote_code", "False") != "False" else []),
        *(
            [name]
            if name.endswith(".from_pretrained")
            and "trust_remote_code" not in given
            and given.get(None) != "source"
            else []
        ),
    ]


# --- F18 -----------------------------------------------------------------------------------------


def answer_to(site_file: Path, study) -> str:
    """What a site answers when it is asked what it can take part in, and cannot."""
    with InProcessGrid(app, [{"site": str(site_file)}], {}) as grid:
        request = encode_request(Request(Kind.CAPABILITIES, study))
        [answer] = grid.send_and_receive([Message(request, 1, "query.capabilities")])
    with pytest.raises(HicaError) as error:
        decode_reply(answer.content, Kind.CAPABILITIES, 0, {})
    return str(error.value)


def test_f18_a_site_tells_neither_hash_nor_path_of_a_file(draw_site, toy_study, tmp_path):
    """A study names any file of a hospital, and the refusal tells its hash."""
    site_file = draw_site("north")
    inside = tmp_path / "weights"
    inside.mkdir()
    site_file.write_text(
        site_file.read_text().replace(f'weights = "{tmp_path}"', f'weights = "{inside}"')
    )
    secret = tmp_path / "secret.txt"
    secret.write_text("name of a patient")
    (inside / "link.pt").symlink_to(secret)
    (inside / "other.pt").write_bytes(b"other weights")
    names = ["../secret.txt", str(secret), "link.pt", "other.pt", "../nothing", "nothing.pt"]
    answers = {
        answer_to(
            site_file,
            toy_study(
                "model.image=timm/test_efficientnet",
                f'model.checkpoint="{name}"',
                f"model.sha256={'0' * 64}",
            ),
        )
        for name in names
    }
    assert len(answers) == 1  # the same words, whether there is such a file or not
    [words] = answers
    assert "not those that the study names or pins" in words
    for told in (file_sha256(secret), file_sha256(inside / "other.pt"), str(tmp_path), "secret"):
        assert told not in words


PATHS = {
    "model.checkpoint": (
        ["model.image=timm/test_efficientnet", f"model.sha256={'0' * 64}"],
        CheckpointError,
    ),
    "model.image": ([], CheckpointError),
    "model.text": ([], CheckpointError),
    "regions.checkpoint unet": (["regions.method=unet"], CheckpointError),
    "regions.checkpoint sam": (["regions.method=sam"], CheckpointError),
    "regions.checkpoint hf-sam": (["regions.method=hf-sam"], CheckpointError),
    "text.corpus": ([], ConfigurationError),
}


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("way", ["up", "absolute", "link", "loop", "nul"])
def test_f18_no_path_of_a_study_leads_out_of_its_folder(toy_study, tmp_path, case, way):
    """A study names a file outside the folder that was meant for what studies name."""
    folder, outside = tmp_path / "weights", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "open_clip_config.json").write_text("{}")
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    name = {
        "up": "../outside",
        "absolute": str(outside),
        "link": "link/file",
        "loop": "loop/file",
        "nul": "a\\u0000b",
    }[way]
    key = case.partition(" ")[0]
    changes, kind = PATHS[case]
    scheme = "local-dir:" if key in ("model.image", "model.text") else ""
    with pytest.raises(kind) as error:
        study = toy_study(*changes, f'{key}="{scheme}{name}"')
        if key in ("model.text", "text.corpus"):
            refined_text_tower(study, folder)
        else:
            tower = adapted_tower(study, folder, CPU).tower
            _ = region_method(study, folder, tower, CPU).version
    assert f"{key} = " in str(error.value)
    assert "leads out of the folder" in str(error.value)


def test_f18_files_of_a_folder_do_not_lead_out_of_it(toy_study, tmp_path):
    """A folder of weights holds a link to a file that is none of them."""
    (tmp_path / "secret").write_text("{}")
    folder = tmp_path / "weights" / "sam"
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to(tmp_path / "secret")
    study = toy_study("regions.method=hf-sam", "regions.checkpoint=sam")
    tower = adapted_tower(study, folder.parent, CPU).tower
    with pytest.raises(CheckpointError, match=r"config\.json: leads out of the folder"):
        _ = region_method(study, folder.parent, tower, CPU).version


# --- F19 -----------------------------------------------------------------------------------------

NAMES = {
    "hf-sam": ["regions.method=hf-sam", "regions.checkpoint=owner/name"],
    "hf-sam, pinned": ["regions.method=hf-sam", f"regions.checkpoint=owner/name@{COMMIT}"],
    "timm": ["model.image=timm/mobilenetv2_100", "model.pretrained=ra_in1k"],
    "timm, pinned": [
        "model.image=timm/mobilenetv2_100",
        "model.pretrained=ra_in1k",
        f"model.sha256={'0' * 64}",
    ],
    "open_clip": ["model.image=ViT-B-32", "model.pretrained=openai"],
    "open_clip, pinned": [
        "model.image=ViT-B-32",
        "model.pretrained=openai",
        f"model.sha256={'0' * 64}",
    ],
    "hf-hub": ["model.image=hf-hub:owner/name"],
    "hf-hub, pinned": [f"model.image=hf-hub:owner/name@{COMMIT}"],
}


@pytest.fixture
def looked_up(monkeypatch, tmp_path) -> list[str]:
    """Hosts that somebody wanted to connect to; the hub's cache is empty and may be filled."""
    from huggingface_hub import constants

    hosts: list[str] = []

    def refuse(host, *_: object, **__: object):
        hosts.append(str(host))
        raise socket.gaierror("no such host in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return hosts


@pytest.mark.parametrize("case", NAMES)
def test_f19_nothing_is_fetched_by_name_unless_it_is_allowed(toy_study, tmp_path, looked_up, case):
    """A study names a model of a hub, and the hospital's machine connects to it."""
    study = toy_study(*NAMES[case])
    with pytest.raises(CheckpointError) as error:
        tower = adapted_tower(study, tmp_path, CPU).tower
        _ = region_method(study, tmp_path, tower, CPU).version
    assert looked_up == []
    if "pinned" in case:
        assert "hubs = true in [data] of site.toml" in str(error.value)
        assert "put it below the folder of weights" in str(error.value)
    else:
        assert "not pinned" in str(error.value)


@pytest.mark.parametrize("case", [case for case in NAMES if "pinned" not in case])
def test_f19_what_is_not_pinned_is_not_fetched_even_where_fetching_is_allowed(
    toy_study, tmp_path, looked_up, case
):
    """Somebody puts other weights under the name that a study has."""
    study = toy_study(*NAMES[case])
    with pytest.raises(CheckpointError, match="not pinned"):
        tower = adapted_tower(study, tmp_path, CPU, hubs=True).tower
        _ = region_method(study, tmp_path, tower, CPU, hubs=True).version
    assert looked_up == []


def test_f19_sites_and_coordinators_are_offline_by_default(draw_site, tmp_path):
    """A machine fetches from hubs because nobody has thought of it."""
    assert load_site(draw_site("north")).data.hubs is False
    assert load_settings(tmp_path).data.hubs is False
    (tmp_path / "server.toml").write_text("[data]\nhubs = true\n")
    assert load_settings(tmp_path).data.hubs is True
    assert load_settings(tmp_path).data.folder == tmp_path / "data"


# --- F20 -----------------------------------------------------------------------------------------


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """What a machine starts processes with: others may read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_paths(folder: Path) -> list[Path]:
    """What others than the owner may get at, in a folder or below it."""
    return [path for path in [folder, *folder.rglob("*")] if path.stat().st_mode & 0o077]


def test_f20_what_the_client_writes_is_for_its_user_alone(draw_site, usual_umask, capsys):
    """Everybody with an account on the machine reads decoded images, state and keys."""
    site_file = draw_site("north")
    for arguments in (["keygen", str(site_file)], ["check", str(site_file), "--offline"]):
        with pytest.raises(SystemExit):
            client(arguments)
    assert "others on this machine" not in capsys.readouterr().out
    site = load_site(site_file)
    for folder in (site.data.state, site.data.cache, site.federation.key.parent):
        assert open_paths(folder) == []


def test_f20_decoded_images_are_closed_in_every_process(tmp_path, usual_umask):
    """A program that uses the library leaves patients' images for all to read."""
    from hica.images.cache import TensorCache

    TensorCache(tmp_path / "cache").put("ab" * 32, {"pixels": torch.zeros(1)})
    [file] = (tmp_path / "cache").rglob("*.safetensors")
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_f20_every_process_of_both_sides_closes_what_it_writes(
    tmp_path, usual_umask, monkeypatch, draw_site
):
    """A process that is started beside the client or the server writes files for all to read."""
    monkeypatch.setattr(flower_runner, "serve", lambda *_: None)
    monkeypatch.setattr(flower_runner, "local_app", lambda *_: None)
    monkeypatch.setattr(supernode, "entry_points", lambda **_: [_Script()])
    monkeypatch.setattr(supernode.os, "_exit", sys.exit)
    monkeypatch.setattr(superlink, "flower_superlink", lambda: None)
    pragmas = superlink.sql_mixin.SQLITE_PRAGMAS  # put back afterwards
    monkeypatch.setattr(superlink.sql_mixin, "SQLITE_PRAGMAS", pragmas)
    (tmp_path / "secret").touch()
    runner = [str(draw_site("north")), "--runtime", "x:1", "--secret", str(tmp_path / "secret")]
    starts = {
        "runner": lambda: flower_runner.main(runner),
        "supernode": supernode.main,
        "superlink": superlink.main,
        "gateway": lambda: gateway.main(["--help"]),
        "client": lambda: client(["--help"]),
        "server": lambda: server(["--help"]),
    }
    found = {}
    for name, start in starts.items():
        os.umask(0o022)
        with contextlib.suppress(SystemExit):
            start()
        found[name] = oct(os.umask(0o022))
    assert found == dict.fromkeys(starts, "0o77")


class _Script:
    """Stands in for the console script of Flower's SuperNode."""

    def load(self):
        return lambda: None


def test_f20_check_notes_what_others_can_read(draw_site, tmp_path, usual_umask, capsys):
    """A hospital never learns that files of an earlier version lie open."""
    site_file = draw_site("north")
    folder = site_file.parent
    (folder / "kit").mkdir()
    (folder / "kit").chmod(0o777)
    for name in ("state", "cache", "keys"):
        (folder / name).mkdir()
        (folder / name / "old").touch()
    with pytest.raises(SystemExit):
        client(["check", str(site_file), "--offline", "--json"])
    notes = json.loads(capsys.readouterr().out)["notes"]
    for name in ("state", "cache", "keys"):
        words = f"{folder / name}: others on this machine can read it, and "
        [note] = [note for note in notes if note.startswith(words)]
        assert note.endswith(f"Run: chmod -R go= {folder / name}")
    assert any(f"chmod -R go-w {folder / 'kit'}" in note for note in notes)


def test_f20_keys_certificates_and_kits_of_a_coordinator_are_closed(tmp_path, usual_umask):
    """Another account on the coordinator's machine reads keys, kits or state."""
    for arguments in (["init", str(tmp_path / "c")], ["provision", str(tmp_path / "c"), "north"]):
        with pytest.raises(SystemExit) as end:
            server(arguments)
        assert end.value.code == 0
    assert open_paths(tmp_path / "c") == []


# --- F21 -----------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, requires: str = "", content: str = "") -> Path:
    """A wheel without anything in it but a module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", facts)
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def test_f21_an_install_takes_no_other_files_than_those_that_were_hashed(tmp_path):
    """Somebody serves another package under the name of one that HiCA needs."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "needed", "Requires-Dist: deeper\n")
    wheel(index, "deeper")
    wheel(index, "builder")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["builder"]\n[project]\ndependencies = ["needed"]\n'
    )
    (tmp_path / "constraints.txt").write_text("deeper==1.0\n")
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    out = tmp_path / "requirements.txt"

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, *map(str, command)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    def install(target: str) -> subprocess.CompletedProcess[str]:
        options = ("--require-hashes", "--only-binary", ":all:", "--no-cache-dir")
        return run(
            *("-m", "pip", "install", "--quiet", *options),
            *("--target", tmp_path / target, "-r", out),
        )

    done = run(ROOT / "deploy" / "hashes.py", out, "--project", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{out}: 3 packages with their hashes\n")
    assert [line.partition("==")[0] for line in out.read_text().splitlines()[1:]] == [
        "builder",
        "deeper",
        "needed",
    ]
    assert install("good").returncode == 0 and (tmp_path / "good" / "deeper.py").exists()
    wheel(index, "deeper", content="print('evil')")
    refused = install("bad")
    assert refused.returncode != 0 and not (tmp_path / "bad").exists()
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in refused.stderr


def test_f21_the_guide_describes_it_and_names_no_index():
    """A hospital does not know how, or is sent to one company's index."""
    guide = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    script = (ROOT / "deploy" / "hashes.py").read_text(encoding="utf-8")
    assert "deploy/hashes.py" in guide and "--require-hashes" in guide
    for text in (guide, script, (ROOT / "Makefile").read_text(encoding="utf-8")):
        assert "pypi" not in text and "index-url" not in text
