"""A study ends, and others use its model: what their libraries say is what HiCA says.

The code in every README.md of the folder is run as it stands there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hica.deployment.keys import fingerprint, generate, parse_public
from hica.steps.predictions import intercepts
from hica_client.cli import main as client
from hica_client.prediction.models import SHARED, SiteModels
from hica_client.site import load_site
from hica_server.cli import main as server

pytestmark = pytest.mark.matrix
CHANGES = (
    "personal.epochs=1",
    "pretraining.rounds=0",
    "alignment.rounds=1",
    "model.image=timm/test_efficientnet",
    "model.image_size=64",
    "model.train=last-1",
)
SCHEMA = Path(__file__).with_name("monai_metadata_schema.json")


@pytest.fixture(scope="module")
def finished(federate_in, toy_study, draw_site_below, tmp_path_factory):
    """Folder, study and `site.toml` of a site that a study is over at."""
    root = tmp_path_factory.mktemp("export")
    study = toy_study(*CHANGES)
    sites = [draw_site_below(root, name, images=60) for name in ("north", "south")]
    federate_in(root / "run", study, sites)
    return root, study, sites[0]


def run(main, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def of_coordinator(finished):
    """What the coordinator exported."""
    root, _, _ = finished
    assert run(server, "export", root / "run", "--to", root / "model") == 0
    return root / "model"


@pytest.fixture(scope="module")
def pictures(finished):
    """Held-out images of the site, and HiCA's logits of them by the shared model alone."""
    _, study, site_file = finished
    site = load_site(site_file)
    models = SiteModels(site, study, own=False)
    records = models.session.roles.test[:6]
    expected = models.seen(models.examples(records)).logits
    return [record.image for record in records], expected


def code_of(readme: Path, image: Path, last: str) -> str:
    """The Python of a README, for another image; `last` prints what is compared."""
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert '"image.png"' in code
    return code.replace("image.png", str(image)) + f"\nprint('found', {last})\n"


def said(folder: Path, code: str) -> list[float]:
    """What a program prints as `found` that knows nothing of HiCA."""
    plain = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=plain, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "hica" not in code
    return json.loads(done.stdout.split("found ")[1])


@pytest.mark.parametrize(
    ("form", "folder", "close"),
    [("open_clip", ".", 1e-5), ("hugging_face", "hugging_face", 1e-4), ("onnx", "onnx", 1e-4)],
)
def test_the_code_of_a_readme_gives_hicas_logits(
    of_coordinator, finished, pictures, form, folder, close
):
    from hica.export.classifier import Classifier

    _, study, site_file = finished
    models = SiteModels(load_site(site_file), study, own=False)
    model, _, bias = models.by_itself(SHARED)
    classifier = Classifier(model, study.alignment.temperature, True, bias)
    path = pictures[0][0]
    pixels = classifier.preprocess.pixels(Image.open(path).convert("RGB"))[None].float() / 255
    with torch.no_grad():
        expected = classifier(pixels)[0][0].numpy()
    code = code_of(of_coordinator / form / "README.md", path, "logits[0].tolist()")
    np.testing.assert_allclose(said(of_coordinator / folder, code), expected, atol=close)
    # What the hospital itself says differs by the 16 bits in which it keeps frozen features.
    np.testing.assert_allclose(expected, pictures[1][0], atol=5e-3)


def test_monai_runs_and_verifies_the_bundle(of_coordinator, pictures, tmp_path):
    bundle = shutil.copytree(of_coordinator / "monai_bundle", tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    for number, path in enumerate(pictures[0]):
        shutil.copyfile(path, tmp_path / "images" / f"{number}.png")
    config = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"]

    def monai(*arguments: str) -> str:
        command = [sys.executable, "-m", "monai.bundle", *arguments]
        done = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    meta = ["--meta_file", "configs/metadata.json", "--filepath", str(SCHEMA)]
    assert "verified with no error" in monai("verify_metadata", *meta)
    assert "verified with no error" in monai(
        "verify_net_in_out", "--net_id", "network_def", *config
    )
    monai("run", *config, "--dataset_dir", str(tmp_path / "images"))
    lines = (bundle / "eval" / "predictions.csv").read_text().splitlines()
    found = np.array([[float(each) for each in line.split(",")[1:]] for line in lines])
    odds = np.exp(pictures[1] - pictures[1].max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=2e-3)
    assert not list(bundle.rglob("*.pt"))


def test_a_hospital_exports_shared_and_personal_model(finished, tmp_path, capsys, monkeypatch):
    _, study, site_file = finished
    monkeypatch.setattr("hica_client.prediction.models.read_kit", lambda _: (None, study))
    public = generate(site_file.parent / "keys" / "site")
    shared, personal = tmp_path / "shared", tmp_path / "personal"
    assert run(client, "export", site_file, "--to", shared) == 0
    assert fingerprint(public) in capsys.readouterr().out
    assert run(client, "export", site_file, "--to", personal, "--model", "personal") == 0
    out = capsys.readouterr().out
    assert "learnt from the patients of north alone" in out and "Nothing protects" in out
    card = json.loads((personal / "model_card.json").read_text())
    assert card["model"] == "the personal model of north" and card["warnings"]
    assert not card["privacy"]["differential_privacy"]
    assert card["measured"][0]["of"].startswith("north: ")
    assert not json.loads((shared / "model_card.json").read_text())["warnings"]
    for folder in (shared, personal):
        assert run(client, "verify", folder, "--fingerprint", fingerprint(public)) == 0
    key = parse_public(json.loads((shared / "manifest.json").read_text())["key"].encode(), "it")
    assert key == public
    (personal / "onnx" / "model.onnx").unlink()
    assert run(client, "verify", personal) == 3
    assert "onnx/model.onnx: is missing" in capsys.readouterr().err
    # The two differ: the personal one was trained on.
    lists = [json.loads((each / "manifest.json").read_text()) for each in (shared, personal)]
    graphs = [each["files"]["onnx/model.onnx"]["sha256"] for each in lists]
    assert graphs[0] != graphs[1]


def test_a_personal_model_has_the_sites_own_intercepts(finished):
    _, study, site_file = finished
    models = SiteModels(load_site(site_file), study)
    model, learnt, bias = models.by_itself("personal")
    own = models.session.kept("own_share")["intercepts"]
    expected = intercepts(models.session, model).numpy() + own
    np.testing.assert_allclose(bias.numpy(), expected)
    np.testing.assert_allclose(learnt.bias, expected)


PRIVATE = (
    "model.train=adapter",
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
    "personal.epochs=0",
)
LORA = ("model.image=timm/test_vit", "model.image_size=160", "model.train=lora")


@pytest.mark.parametrize(("changes", "missing"), [(PRIVATE, {"open_clip"}), (LORA, set())])
def test_a_private_study_and_one_of_lora(
    federate_in, toy_study, draw_site_below, tmp_path, changes, missing
):
    study = toy_study(*CHANGES, *changes)
    sites = [draw_site_below(tmp_path, name, images=24) for name in ("north", "south")]
    for site in sites:
        site.write_text(site.read_text() + "[policy]\nmin_count = 3\nmax_epsilon = 10.0\n")
    federate_in(tmp_path / "run", study, sites)
    assert run(server, "export", tmp_path / "run", "--to", tmp_path / "model") == 0
    card = json.loads((tmp_path / "model" / "model_card.json").read_text())
    assert card["not_here"].keys() == missing
    assert card["privacy"]["differential_privacy"] == study.privacy.is_private
    assert ("ε = 3.0" in (tmp_path / "model" / "model_card.md").read_text()) == bool(missing)
