"""F, 18 to 20: files that are read, fetched and written."""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import Message

from hica.cohort.region_method import region_method
from hica.errors import CheckpointError, ConfigurationError, HicaError
from hica.images.cache import file_sha256
from hica.text.from_study import refined_text_tower
from hica.towers.from_study import adapted_tower
from hica.wire.messages import Kind, Request
from hica.wire.records import decode_reply, encode_request
from hica_client import flower_runner, supernode
from hica_client.app import app
from hica_client.cli import main as client
from hica_client.site import load_site
from hica_server import gateway
from hica_server.cli import main as server
from hica_server.settings import load_settings
from hica_server.superlink import __main__ as superlink
from hica_simulations.grid import InProcessGrid

from .evil_pair import COMMIT, CPU

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
        assert "hubs = true in [data] of the site file" in str(error.value)
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
