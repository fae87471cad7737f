"""A study ends, and a hospital uses its model: from images to a table and a page."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from hica.errors import CheckpointError, FederationError
from hica.steps.personal import ALONE_MODEL, PERSONAL_MODEL
from hica.steps.predictions import probabilities_of
from hica.wire.checkpoint import load_state, save_state
from hica_client.cli import main
from hica_client.prediction.models import SiteModels
from hica_client.session import Session
from hica_client.site import load_site

CHANGES = ("personal.epochs=1", "pretraining.rounds=0", "alignment.rounds=1")


@pytest.fixture(scope="module")
def finished(federate_in, toy_study, draw_site_below, tmp_path_factory):
    """`site.toml` of a site that a study is over at; a start kit makes it the client's."""
    root = tmp_path_factory.mktemp("predict")
    study = toy_study(*CHANGES)
    sites = [draw_site_below(root, name, images=60) for name in ("north", "south")]
    federate_in(root / "run", study, sites)
    return sites[0], study


@pytest.fixture
def kit(finished, monkeypatch):
    """The study, without the other files of a start kit."""
    monkeypatch.setattr("hica_client.prediction.models.read_kit", lambda _: (None, finished[1]))
    return finished[0]


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, arguments)])
    return end.value.code


def test_held_out_images_get_the_predictions_of_the_evaluation(finished):
    site_file, study = finished
    models = SiteModels(load_site(site_file), study)
    assert models.weight is not None
    expected = models.held_out().logits
    found = models.seen(models.examples(models.session.roles.test)).logits
    np.testing.assert_allclose(found, expected, atol=1e-4)
    kept = Session(load_site(site_file), study).kept("predictions")
    np.testing.assert_allclose(probabilities_of(found), kept["probabilities"], atol=1e-5)
    again = models.seen(models.examples(models.session.roles.test)).logits  # its own came between
    np.testing.assert_array_equal(again, found)
    shared = SiteModels(load_site(site_file), study, own=False)
    assert shared.weight is None
    said = shared.seen(shared.examples(shared.session.roles.test)).logits
    np.testing.assert_allclose(probabilities_of(said), kept["shared"], atol=1e-5)
    np.testing.assert_allclose(said, shared.held_out().logits, atol=1e-4)


def test_a_folder_becomes_a_table_and_a_page(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    new = tmp_path / "new"
    (new / "deeper").mkdir(parents=True)
    for number in (1, 2, 41):
        (new / f"{number}.png").write_bytes((kit.parent / f"{number}.png").read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(new / "deeper" / "noise.png")
    (new / "Thumbs.db").write_text("x")
    (new / "deeper" / "above").symlink_to(new)
    out = tmp_path / "out"
    assert run(kit, new, "--out", out) == 0
    rows = {row["image"]: row for row in csv.DictReader((out / "predictions.csv").open())}
    assert rows.keys() == {"1.png", "2.png", "41.png", "deeper/noise.png"}
    said = json.loads((out / "predictions.json").read_text())
    assert said["coverage"] == 0.9 and said["checked"]["patients"] == said["held_out_patients"]
    by_name = {each["image"]: each for each in said["predictions"]}
    for name in ("1.png", "2.png"):
        assert by_name[name]["learnt_from"] and "trained on this image" in rows[name]["note"]
    assert not by_name["41.png"]["learnt_from"]
    for each in said["predictions"]:
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert (each["answer"] is None) == (each["why"] != "")
        assert each["answer"] is None or each["classes"] == [each["answer"]]
    assert by_name["deeper/noise.png"]["answer"] is None
    page = (out / "page.html").read_text()
    assert "deeper/noise.png" in page and "http" not in page and page.count("<article>") == 4
    for name in ("predictions.csv", "predictions.json", "page.html"):
        assert (out / name).stat().st_mode & 0o77 == 0
    shown = capsys.readouterr()
    assert "page.html" in shown.out
    assert "passed over: 1 (left by an operating system): Thumbs.db" in shown.err
    assert "a link to another folder" in shown.err


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_predicted(kit, tmp_path, capsys):
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes((kit.parent / "1.png").read_bytes())
    (new / "b.png").write_text("no image")
    assert run(kit, new, "--out", tmp_path / "out", "--json") == 3
    out, err = capsys.readouterr()
    said = json.loads(out)["predictions"]
    assert said[0]["probabilities"] and not said[1]["probabilities"]
    assert "b.png" in said[1]["why"] and "1 of 2 images could not be read" in err


def test_one_image_and_a_manifest_can_be_named(kit, tmp_path, capsys):
    assert run(kit, kit.parent / "3.png", "--out", tmp_path / "one", "--model", "shared") == 0
    said = json.loads((tmp_path / "one" / "predictions.json").read_text())
    assert [each["image"] for each in said["predictions"]] == ["3.png"]
    assert said["own_share"] is None
    assert run(kit, kit.parent / "manifest.csv", "--out", tmp_path / "all") == 0
    assert len((tmp_path / "all" / "predictions.csv").read_text().splitlines()) == 61


def test_a_class_is_called_at_an_operating_point(kit, tmp_path, capsys):
    asked = ("--of", "round", "--sensitivity", "0.9")
    assert run(kit, kit.parent / "manifest.csv", "--out", tmp_path / "out", *asked) == 0
    said = json.loads((tmp_path / "out" / "predictions.json").read_text())
    point = said["operating_point"]
    assert point["class"] == "round" and point["sensitivity"]["value"] >= 0.9
    for each in said["predictions"]:
        assert each["called"] == (each["probabilities"]["round"] >= point["threshold"])
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert {row["called round"] for row in rows} <= {"yes", "no"}
    assert "sensitivity" in (tmp_path / "out" / "page.html").read_text()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--of", "star", "--sensitivity", "0.9"), "--of star: the classes are round, square"),
        (("--of", "round"), "give just one of --sensitivity and --specificity"),
        (("--sensitivity", "0.9"), "of which class? Add --of CLASS"),
    ],
)
def test_an_operating_point_that_is_none_is_told(kit, tmp_path, capsys, asked, said):
    assert run(kit, kit.parent / "3.png", "--out", tmp_path, *asked) == 2
    assert said in capsys.readouterr().err


def test_few_held_out_patients_give_none(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hica_client.prediction.predict.FEWEST", 1000)
    asked = ("--of", "round", "--sensitivity", "0.9")
    assert run(kit, kit.parent / "3.png", "--out", tmp_path, *asked) == 3
    assert "an operating point needs 1000 patients at least" in capsys.readouterr().err
    assert run(kit, kit.parent / "3.png", "--out", tmp_path) == 0
    (said,) = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert said["answer"] and "too few held-out patients" in said["why"]


def test_what_is_no_image_is_told(kit, tmp_path, capsys):
    assert run(kit, tmp_path / "nowhere") == 3
    assert "name an image, a folder of images or a manifest" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(kit, tmp_path / "empty") == 3
    assert "no images in it" in capsys.readouterr().err


def test_before_the_end_there_is_no_model(draw_site, toy_study):
    site = load_site(draw_site("early"))
    with pytest.raises(FederationError, match="has left no model here yet"):
        SiteModels(site, toy_study())


def test_models_kept_by_an_earlier_version_are_not_guessed_at(finished):
    site, study = load_site(finished[0]), finished[1]
    folder = site.study_folder(study.sha256)
    for name in (PERSONAL_MODEL, ALONE_MODEL):
        arrays, _ = load_state(folder, name)
        whole = dict(arrays)
        arrays.pop("classes")
        save_state(folder, name, arrays, {"question": ""})
        try:
            with pytest.raises(CheckpointError, match="predict with --model shared"):
                SiteModels(site, study)
        finally:
            save_state(folder, name, whole, {"question": ""})
    SiteModels(site, study)
