"""Classes that a study was not trained on are named by their texts, and it is said what that is."""

import csv
import json

import pytest

from hica.text import from_study
from hica.text.bank import build_text_bank
from hica_client.cli import main
from hica_client.prediction import unseen
from hica_client.prediction.models import SiteModels
from hica_client.site import load_site

STAR = """
[[classes]]
name = "star"
prompts = ["a striped round mass", "a mass of square texture"]
"""


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, arguments)])
    return end.value.code


@pytest.fixture
def new_classes(tmp_path):
    def write(text=STAR):
        path = tmp_path / "new.toml"
        path.write_text(text)
        return path

    return write


def test_an_unseen_class_is_named_and_promises_nothing(kit, tmp_path, new_classes, capsys):
    out = tmp_path / "out"
    asked = (kit, kit.parent / "manifest.csv", "--out", out, "--classes", new_classes())
    assert run(*asked) == 0
    said = json.loads((out / "predictions.json").read_text())
    assert said["unseen"]["classes"] == ["star"]
    assert (said["unseen"]["trained"], said["unseen"]["calibrated"]) == (False, False)
    assert said["unseen"]["coverage"] is None
    assert run(*asked[:2], "--out", tmp_path / "without") == 0
    without = json.loads((tmp_path / "without" / "predictions.json").read_text())
    assert without["unseen"] is None
    for each, before in zip(said["predictions"], without["predictions"], strict=True):
        assert each["by_texts"].keys() == {"round", "square", "star"}
        assert sum(each["by_texts"].values()) == pytest.approx(1)
        assert "star" not in each["classes"]
        assert each | {"by_texts": {}} == before  # the study's own answer is what it was
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert 0 <= float(rows[0]["text star"]) <= 1
    page = (out / "page.html").read_text()
    assert "never trained, not calibrated, no coverage" in page and "expect no more than" in page
    assert "these classes were never trained" in capsys.readouterr().err
    stars = [row for row in rows if float(row["text star"]) > 0.5]
    assert stars and all("by texts alone most like star" in row["note"] for row in stars)


def test_the_studys_own_classes_are_where_its_text_bank_has_them(finished, new_classes):
    site, study = finished
    models = SiteModels(load_site(site), study)
    found = unseen.unseen_classes(new_classes(), models)
    tower = from_study.refined_text_tower(study, site.parent)
    bank = build_text_bank(tower, study.class_texts, models.session.width, 0.95, study.study.seed)
    assert found.texts[:2] == pytest.approx(bank.classes.numpy(), abs=1e-6)
    assert found.names == ("round", "square", "star")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes = []", "classes"),
        (STAR.replace("prompts", "prompt"), "known keys: name, prompts"),
        (STAR + STAR, "classes need different names"),
        (STAR.replace("star", "round"), "the study has this class"),
        (
            '[[classes]]\nname = "star"\nprompts = [" "]',
            "give at least one sentence",
        ),
        ('[[classes]]\nname = "star"\nprompts = ["xyz"]', "knows none of the words"),
        ('[[classes]]\nname = "star"\nprompts = ["a round smooth mass"]', "say how they differ"),
        ("[study]\nname = 'x'" + STAR, "known keys: classes"),
        ("[[classes", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(kit, tmp_path, new_classes, capsys, text, said):
    out = tmp_path / "out"
    asked = (kit, kit.parent / "3.png", "--out", out, "--classes", new_classes(text))
    assert run(*asked) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "new.toml" in err and said in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.text=hf:clip", "hica-client backbone import"),
        ("text.corpus=corpus.txt", "text.corpus (corpus.txt) belongs there"),
    ],
)
def test_a_site_without_the_text_tower_is_told_how_to_get_it(
    finished, toy_study, monkeypatch, kit, tmp_path, new_classes, capsys, change, said
):
    monkeypatch.setattr(SiteModels, "study", toy_study(change))
    out = tmp_path / "out"
    assert run(kit, kit.parent / "3.png", "--out", out, "--classes", new_classes()) == 4
    err = " ".join(capsys.readouterr().err.split())
    assert "needs the study's text tower" in err and said in err
