"""The page: all sections, nothing from outside, hostile names harmless, everything optional."""

import base64
import json
import re

import numpy as np
import pytest

from hica.errors import StorageError
from hica.method.evaluation import site_metrics
from hica.method.stratified import combine
from hica_server.report import Cluster, Embedding, Example, Extras, write_report
from hica_server.report.html import (
    class_names,
    confusions,
    duration,
    headline,
    incidents,
    recipe,
    scale,
    worst_site,
)

SECTIONS = [
    *("headline", "comparison", "sites", "curves", "confusion", "reliability", "embedding"),
    *("examples", "clusters", "traffic", "attendance", "reproduce", "study"),
]
HOSTILE = '<script>alert("x")</script> $\\frac$'
STUDY = """
[study]
name = "two <b>classes</b>"
[[classes]]
name = "benign"
prompts = ["see http://example.org"]
[[classes]]
name = "malignant"
prompts = ["b"]
"""


def measured(n, skill, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    logits = rng.normal(size=n) + skill * (2 * labels - 1)
    p = 1 / (1 + np.exp(-logits))
    groups = [str(i) for i in range(n)]
    return site_metrics(
        np.stack([1 - p, p], axis=1), labels, groups, 2, resamples=20, seed=0, min_count=3
    )


def entry(stage, number, **more):
    return {
        "stage": stage,
        "round": number,
        "seconds": 40.0,
        "bytes_up": 1_000_000,
        "bytes_down": 2_000_000,
        "participants": ["Bern", HOSTILE],
        "refused": {},
        "missing": [],
        "loss": 1.0 / number,
        "site_loss": {"Bern": 0.9 / number, HOSTILE: 1.1 / number},
    } | more


@pytest.fixture(scope="module")
def result():
    sites = {"Bern": measured(40, 2.0, 0), HOSTILE: measured(24, 0.4, 1)}
    table = {
        "study": HOSTILE,
        "seed": 3,
        "date": "2026-01-31",
        "sites": {
            name: {
                "labelled": 40,
                "unlabelled": 1200,
                "test": each.n,
                "classes": {"benign": None, "malignant": 20},
            }
            for name, each in sites.items()
        },
        "rounds": [
            entry("statistics", 1, loss=None, site_loss={}),
            entry("pretraining", 1),
            entry("alignment", 1, participants=["Bern"], refused={HOSTILE: "norm <i>9e9</i>"}),
            entry("alignment", 2, participants=["Bern"], missing=[HOSTILE]),
            entry("evaluation", 2, loss=None, site_loss={}, accuracy={"Bern": 0.8, HOSTILE: 0.6}),
        ],
        "final": combine(list(sites.values())).to_dict(),
        "per_site": {name: each.to_dict() for name, each in sites.items()},
        "baselines": {
            "zero_shot": combine([measured(60, 0.1, 2)]).to_dict(),
            "local_only": combine([measured(60, 0.5, 3)]).to_dict(),
            "pooled": combine([measured(60, 3.0, 4)]).to_dict(),
            "my_method": combine([measured(60, 1.0, 5)]).to_dict(),
            "pixels": None,
        },
        "checkpoint": "checkpoint.safetensors",
        "text_bank_sha256": "ab" * 32,
        "versions": {"hica": "0.1.0", "torch": "2.15.0"},
        "device": "cpu",
    }
    return json.loads(json.dumps(table))  # as it is read from the file


@pytest.fixture(scope="module")
def extras():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, size=(16, 16, 3), dtype=np.uint8)
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 4:9, 4:9] = True
    similarity = rng.normal(size=(4, 4)).astype(np.float32)
    return Extras(
        embedding=Embedding(
            rng.normal(size=(30, 2)), [i % 3 - 1 for i in range(30)], ["Bern", HOSTILE] * 15
        ),
        examples=[
            Example(image, masks, similarity, "benign", "malignant", 0.7, HOSTILE),
            Example(image, masks[:0], similarity * 0, "benign", "benign", 0.9, "Bern"),
        ],
        clusters=[Cluster(5, [image, image], 1234)],
    )


@pytest.fixture(scope="module")
def page(result, extras, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    write_report(path, result, STUDY, extras)
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_there(page, section):
    assert page.count(f'id="{section}"') == 1


def test_nothing_is_loaded_from_outside(page):
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s>)]*)', page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "@import" not in page and "<link" not in page and "<script" not in page


def test_hostile_names_are_escaped(page):
    assert "&lt;script&gt;alert" in page
    assert "norm &lt;i&gt;9e9&lt;/i&gt;" in page
    assert "two &lt;b&gt;classes&lt;/b&gt;" in page  # in the study's text
    for svg in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
        assert "<script" not in base64.b64decode(svg).decode()


def test_numbers_of_the_result_are_shown(page, result):
    final = result["final"]["balanced_accuracy"]
    assert f'<p class="figure">{100 * final["value"]:.1f}<small>' in page
    assert f"{100 * final['low']:.1f} to {100 * final['high']:.1f}" in page
    assert "benign few" in page  # a hidden count
    assert "1\u202f200" in page
    assert "5 exchanges in 3 min 20 s" in page
    assert "5 MB up and 10 MB down" in page
    assert "2026-01-31" in page and "hica-server provision again SITE..." in page
    assert "My method" in page and "Pixels" not in page


def test_the_weakest_site_is_marked(page):
    assert page.count("<em>weakest</em>") == 1
    assert re.search(r'<tr class="worst">\s*<th>&lt;script&gt;', page)


def test_a_result_without_anything_still_makes_a_page(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, {"study": "stopped"}, "not toml [", Extras())
    page = path.read_text(encoding="utf-8")
    assert "it stopped before its evaluation" in page
    present = [section for section in SECTIONS if f'id="{section}"' in page]
    assert present == ["headline", "reproduce", "study"]


def test_a_real_federation_has_no_pictures_and_hidden_counts(result, tmp_path):
    result = json.loads(json.dumps(result))
    result["per_site"]["Bern"].update(confusion=None, auroc=None)
    result["final"]["auroc"] = None
    del result["per_site"][HOSTILE], result["baselines"], result["versions"]
    path = tmp_path / "report.html"
    write_report(path, result, STUDY, Extras())
    page = path.read_text(encoding="utf-8")
    assert "hidden: a class has few patients, who are not evaluated" in page
    assert "undefined" in page and "not evaluated" in page
    assert not {"embedding", "examples", "clusters", "comparison"} & {
        section for section in SECTIONS if f'id="{section}"' in page
    }


def test_the_same_result_gives_the_same_page(result, extras, page, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, result, STUDY, extras)
    assert path.read_text(encoding="utf-8") == page


def test_a_report_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"report\.html: report could not be written"):
        write_report(tmp_path / "file" / "report.html", {}, "", Extras())


def interval(value):
    return {"balanced_accuracy": {"value": value, "low": value - 0.07, "high": value + 0.07}}


def test_headline_says_which_way_the_gaps_go():
    result = {
        "final": interval(0.8),
        "baselines": {"local_only": interval(0.75), "pooled": interval(0.82)},
        "per_site": {"a": interval(0.9), "b": interval(0.7)},
    }
    assert headline(result) == [
        "Balanced accuracy is 5.0 points above the sites' own models "
        "and 2.0 points below training on pooled images.",
        "The weakest site is b at 70.0 %.",
    ]
    assert headline({}) == []


def test_one_site_is_no_worst_site():
    assert worst_site({"a": interval(0.9)}) is None


def test_bars_begin_at_a_round_number_below_the_lowest_limit():
    assert scale([interval(0.9), interval(0.65)]) == 0.5
    assert scale([]) == 0.0


def test_classes_come_from_the_study_or_else_the_sites():
    sites = {"a": {"classes": {"x": 1}}, "b": {"classes": {"y": 1, "x": 2}}}
    assert class_names(STUDY, sites) == ["benign", "malignant"]
    assert class_names("", sites) == ["x", "y"]


def test_confusions_are_summed_over_the_sites_that_show_them():
    per_site = {
        "a": {"confusion": [[3, 1], [0, 0]]},
        "b": {"confusion": [[1, 3], [0, 2]]},
        "c": {"confusion": None},
    }
    tables = confusions(per_site, 2)
    assert [table["name"] for table in tables] == ["2 sites shown", "a", "b", "c"]
    assert tables[0]["rows"] == [[(4, 0.5), (4, 0.5)], [(0, 0.0), (2, 1.0)]]
    assert tables[1]["rows"][1] == [(0, 0.0), (0, 0.0)]
    assert tables[3]["rows"] is None


def test_incidents_in_order_their_rounds_counted_from_1():
    rounds = [
        entry("alignment", 4, refused={"a": "NaN"}),
        entry("alignment", 5, missing=["b"]),
    ]
    assert [(each["round"], each["site"], each["what"]) for each in incidents(rounds)] == [
        (5, "a", "refused"),
        (6, "b", "no answer"),
    ]


def test_a_recipe_is_one_that_the_study_can_be_run_by():
    assert recipe(STUDY)[-1] == "hica-server run again"
    sites = "[simulation]\n[[simulation.sites]]\nname = 'a'\n"
    assert recipe(STUDY + sites) == ["hica-sim run study.toml --data IMAGES --out runs/again"]
    drawn = "[simulation.phantoms]\nmodality = 'x'\n"
    assert recipe(STUDY + sites + drawn) == ["hica-sim run study.toml --out runs/again"]


def test_units():
    assert [duration(s) for s in (0.42, 75.3, 3720)] == ["0.4 s", "1 min 15 s", "1 h 2 min"]


def test_where_methods_saw_different_images_each_says_how_many(result, page, tmp_path):
    assert "All on the same held-out patients" not in page
    assert "both saw the same patients" not in page
    assert "no image left its site · n = 64" in page and "n = 60" in page
    baselines = {"zero_shot": result["final"]}
    write_report(tmp_path / "report.html", {**result, "baselines": baselines}, STUDY, Extras())
    same = (tmp_path / "report.html").read_text()
    assert "All on the same held-out patients" in same and "both saw the same patients" in same
    assert "n = " not in same.split('<section id="sites">')[0]


def test_what_sites_note_of_their_data_and_of_withdrawals_is_shown(result, tmp_path):
    sites = {name: dict(site) for name, site in result["sites"].items()}
    sites[HOSTILE] |= {"notes": ["the manifest has changed", HOSTILE], "withdrawn": "some"}
    sites["Bern"] |= {"notes": [], "withdrawn": 5}
    write_report(tmp_path / "report.html", {**result, "sites": sites}, STUDY, Extras())
    page = (tmp_path / "report.html").read_text()
    assert "<td>the manifest has changed</td>" in page and HOSTILE not in page
    assert "Bern 5" in page and "some (fewer than the study's minimum)" in page.replace(
        "&#39;", "'"
    )
