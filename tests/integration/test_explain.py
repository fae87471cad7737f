"""What stands behind a prediction: regions, texts, shots, models; and every held-out image."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from hica.errors import CheckpointError
from hica.steps.personal import PERSONAL_MODEL
from hica.wire.checkpoint import load_state, save_state
from hica_client.cli import main
from hica_client.prediction import explanation_written
from hica_client.prediction.explanation import explained
from hica_client.prediction.models import SiteModels
from hica_client.prediction.predict import Predictor
from hica_client.session import Session
from hica_client.site import load_site


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["explain", *map(str, arguments)])
    return end.value.code


def test_an_image_is_explained(kit, tmp_path, capsys):
    out, image = tmp_path / "out", kit.parent / "41.png"
    asked = (kit, image, "--mask", kit.parent / "41-mask.png", "--out", out)
    assert run(*asked, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((out / "explanation.json").read_text())
    weights = {each["model"]: each["weight"] for each in said["voices"]}
    assert weights == pytest.approx({"shared": 0.6, "personal": 0.2, "alone": 0.2})
    assert said["by"] == "shared" and said["region_share"] == 0
    findings = {"smooth margin", "round shape", "striped texture", "square shape"}
    assert [each["region"] for each in said["regions"]] == [1, 2]  # the parts of the outline
    for each in said["regions"]:
        similarities = each["similarities"]
        assert similarities.keys() == findings
        assert each["finding"] == max(findings, key=similarities.__getitem__)
    best = max(said["regions"], key=lambda each: max(each["similarities"].values()))
    assert [each["kind"] for each in said["maps"]] == ["class", "finding"]
    assert said["maps"][1]["text"] == best["finding"]
    grid = np.array(said["maps"][0]["cosines"])
    assert grid.shape == (8, 8) and np.abs(grid).max() <= 1.0001
    cosines = [each["similarity"] for each in said["shots"]]
    assert cosines == sorted(cosines, reverse=True) and len(cosines) == 6
    assert not any(each["same"] for each in said["shots"])
    names = {"image.png", "regions.png", *(each["picture"] for each in said["maps"])}
    assert {each.name for each in out.iterdir()} == names | {"explanation.json", "page.html"}
    assert all(each.stat().st_mode & 0o77 == 0 for each in out.iterdir())
    page = (out / "page.html").read_text()
    assert "http" not in page and page.count("data:image") == 2 + 2 + 6
    assert "do not send it on" in page and "do not count in this study" in page


def test_voices_and_regions_are_those_of_the_prediction(finished):
    site, study = finished
    predictor = Predictor(SiteModels(load_site(site), study), 0.9)
    record = predictor.models.session.roles.test[0]
    (said,) = predictor.predictions([record])
    found = explained(predictor, record, [], "shared").said
    assert found.prediction == said
    assert [each.finding for each in found.regions] == [each.finding for each in said.regions]
    nearest = [max(each.similarities.values()) for each in found.regions]
    assert nearest == pytest.approx([each.similarity for each in said.regions], abs=1e-5)
    # Their logits add up by weight: so do the logarithms of the odds.
    log_odds = {
        each.model: np.log(each.probabilities["round"] / each.probabilities["square"])
        for each in found.voices
    }
    whole = sum(each.weight * log_odds[each.model] for each in found.voices)
    odds = said.probabilities["round"] / said.probabilities["square"]
    assert whole == pytest.approx(np.log(odds), abs=1e-4)
    assert found.voices[0].model == "shared"  # the weightiest


def test_a_map_is_of_the_text_that_is_asked_for_by_the_model_that_is(finished):
    site, study = finished
    predictor = Predictor(SiteModels(load_site(site), study), 0.9)
    record = predictor.models.session.roles.test[0]
    asked = ["square", "round shape"]
    shared, personal = (explained(predictor, record, asked, by) for by in ("shared", "personal"))
    for found in (shared.said, personal.said):
        assert [(each.kind, each.text) for each in found.maps] == [
            ("class", "square"),
            ("finding", "round shape"),
        ]
    assert shared.said.maps[0].cosines != personal.said.maps[0].cosines
    pixels = shared.pixels
    likeness = predictor.models.class_map(pixels, study.class_names.index("square"))
    np.testing.assert_allclose(shared.said.maps[0].above_others, likeness, atol=1e-6)


def test_a_shot_that_is_the_image_itself_is_said_to_be(kit, finished, tmp_path, capsys):
    shot = Session(load_site(kit), finished[1]).roles.shots[0]
    assert run(kit, shot.image, "--out", tmp_path / "out") == 0
    said = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert said["shots"][0]["same"] and said["shots"][0]["image"] == shot.name
    assert said["shots"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert said["prediction"]["learnt_from"]
    assert "this very image" in (tmp_path / "out" / "page.html").read_text()
    assert "weight 60 %" in capsys.readouterr().out
    assert said["regions"] == []  # no outline was named
    assert "needs an outline" in (tmp_path / "out" / "page.html").read_text()


def test_held_out_images_come_the_wrong_and_sure_ones_first(kit, tmp_path, capsys):
    assert run(kit, "--test", "--out", tmp_path / "out") == 0
    said = json.loads((tmp_path / "out" / "test.json").read_text())
    rows = said["tested"]
    assert len(rows) == said["images"] == 30
    order = [(each["right"], -each["confidence"]) for each in rows]
    assert order == sorted(order)
    for each in rows:
        assert each["right"] == (each["label"] == each["predicted"])
        assert each["confidence"] == max(each["probabilities"].values())
    assert said["right"] == sum(each["right"] for each in rows)
    result = json.loads(next(kit.parent.glob("state/*/result.json")).read_text())
    assert said["right"] / 30 == pytest.approx(result["federated"]["accuracy"]["value"])
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("<article>") == 30 and "do not send it on" in page and "http" not in page
    positions = [page.index(f"<h2>{each['image']}</h2>") for each in rows]
    assert positions == sorted(positions)
    assert f"{said['right']} of 30 right" in capsys.readouterr().out


def test_a_site_that_holds_out_nobody_has_none_to_show(kit, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Session, "size", lambda self, part: 0)
    assert run(kit, "--test", "--out", tmp_path / "out") == 3
    assert "holds out no images for this study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((), "name an image, or give --test"),
        (("IMAGE", "--test"), "just one of the two"),
        (("--test", "--text", "round"), "--text: is for one IMAGE"),
        (("--test", "--by", "alone"), "--by: is for one IMAGE"),
        (("FOLDER",), "explain takes one image file"),
        (("IMAGE", "--text", "star"), "no class or finding of the study; the classes are round"),
        (("IMAGE", "--model", "shared", "--by", "alone"), "explain with --by shared"),
        (("IMAGE", "--out", "FOLDER"), "is not empty"),
        (("IMAGE", "--out", "IMAGE"), "is a file; name a folder"),
    ],
)
def test_what_is_asked_wrongly_is_told(kit, tmp_path, capsys, asked, said):
    places = {"IMAGE": kit.parent / "3.png", "FOLDER": kit.parent}
    words = [places.get(each, each) for each in asked]
    out = () if "--out" in asked else ("--out", tmp_path / "out")
    assert run(kit, *words, *out) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_refused_is_named(kit, tmp_path, capsys):
    image = tmp_path / "b.png"
    image.write_text("no image")
    assert run(kit, image, "--out", tmp_path / "out") == 3
    assert "b.png" in capsys.readouterr().err
    assert run(kit, tmp_path / "nowhere.png", "--out", tmp_path / "out") == 3
    assert "nowhere.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_picture_of_another_kind_is_explained_and_not_answered(kit, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert run(kit, tmp_path / "noise.png", "--out", tmp_path / "out") == 0
    said = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert said["prediction"]["answer"] is None
    assert "unlike the images" in (tmp_path / "out" / "page.html").read_text()


def test_a_study_that_is_not_over_and_an_early_model_are_told(
    kit, finished, draw_site, tmp_path, capsys
):
    early = draw_site("early")
    assert run(early, kit.parent / "3.png", "--out", tmp_path / "out") == 6
    assert "has left no model here yet" in capsys.readouterr().err
    folder = load_site(kit).study_folder(finished[1].sha256)
    arrays, _ = load_state(folder, PERSONAL_MODEL)
    less = {name: rows for name, rows in arrays.items() if name != "classes"}
    save_state(folder, PERSONAL_MODEL, less, {"question": ""})
    try:
        assert (
            run(kit, kit.parent / "3.png", "--out", tmp_path / "out") == CheckpointError.exit_code
        )
        assert "with --model shared" in capsys.readouterr().err
        assert run(kit, kit.parent / "3.png", "--model", "shared", "--out", tmp_path / "out") == 0
    finally:
        save_state(folder, PERSONAL_MODEL, arrays, {"question": ""})


def test_a_shot_that_has_gone_is_left_out_of_the_page(finished, tmp_path, monkeypatch):
    site, study = finished
    predictor = Predictor(SiteModels(load_site(site), study), 0.9)
    found = explained(predictor, predictor.models.session.roles.test[0], [])
    monkeypatch.setattr(explanation_written, "_thumbnail", lambda predictor, row: "")
    explanation_written.write_explanation(tmp_path, predictor, found)
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 0 and found.said.shots[0].image in page
