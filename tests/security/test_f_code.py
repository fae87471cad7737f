"""F, 17 and 21: what comes from outside runs no code."""

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hica.cohort.region_method import region_method
from hica.errors import CheckpointError
from hica.text.from_study import refined_text_tower
from hica.towers.from_study import adapted_tower

from .evil_pair import CPU, ROOT, VISION, folder_of_a_pair

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
