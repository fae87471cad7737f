"""What a reviewer does in each view."""

import pytest
from PIL import Image
from tests.unit.hica_client.review.conftest import HOSTILE

from hica.errors import DataError
from hica.images.cache import file_sha256
from hica_client.review import agreement, clusters, labels, pictures, regions
from hica_client.review.desk import Desk
from hica_client.session import Session


def key_of(desk, name):
    return next(key for key, row in desk.rows.items() if row.record.name == name)


def test_a_rejected_cluster_holds_all_its_images(desk, site, study):
    told = clusters.listed(desk)["clusters"]
    assert [(each["number"], each["images"], each["verdict"]) for each in told] == [
        (0, 4, None),
        (1, 4, None),
    ]
    images = {each["name"] for each in clusters.gallery(desk, 1, 0)["images"]}
    clusters.judge(desk, 1, "reject", "noise")
    assert clusters.listed(desk)["clusters"][1] | {"images": 0} == {
        "number": 1,
        "images": 0,
        "verdict": "reject",
        "name": "noise",
    }
    session = Session(site, study)
    left_out = {
        row.name for row, out in zip(session.roles.pool, session.rejected, strict=True) if out
    }
    assert left_out == images and len(images) == 4


def test_before_stage_1_there_are_no_clusters(site, study):
    told = clusters.listed(Desk(site, study, "anna"))
    assert told["clusters"] == [] and "they come with stage 1" in told["why"]


def test_a_large_cluster_is_a_gallery_of_pages(desk, monkeypatch):
    monkeypatch.setattr(clusters, "PAGE", 3)
    pages = [clusters.gallery(desk, 0, page) for page in (0, 1)]
    assert [len(page["images"]) for page in pages] == [3, 1]
    assert {page["pages"] for page in pages} == {2}


def test_looking_keeps_nothing(site, study):
    """The draw of a study is made by the study."""
    clusters.listed(Desk(site, study, "anna"))
    assert not site.study_folder(study.sha256).exists() and not site.decisions.exists()


def test_images_come_in_pages_by_label(desk, monkeypatch):
    assert {each["of"]: each["images"] for each in labels.choices(desk)} == {
        "": 16,
        "round": 7,
        "square": 7,
        "without label": 2,
    }
    monkeypatch.setattr(labels, "PAGE", 5)
    page = labels.page_of(desk, "round", 1)
    assert (len(page["images"]), page["pages"]) == (2, 2)
    unlabelled = labels.page_of(desk, labels.UNLABELLED, 0)["images"]
    assert [each["name"] for each in unlabelled] == ["6.png", "7.png"]


def test_a_label_is_kept_by_the_image_and_shown_to_who_gave_it(desk, second, site):
    key = key_of(desk, HOSTILE)
    labels.give_label(desk, key, "square")
    assert desk.told(desk.row(key))["given"] == "square"
    assert second.told(second.row(key))["given"] is None  # the second looks without the first
    image = file_sha256(site.data.manifest.parent / HOSTILE)
    assert desk.standing.reviewed.labels == {image: "square"}
    labels.judge_image(desk, key, "reject")
    assert desk.told(desk.row(key))["rejected"] and desk.standing.reviewed.rejected == {image}


def test_an_image_beyond_the_study_is_not_shown_either_once_it_was_exchanged(site, toy_study):
    """Else a label would be given to what the reviewer has not seen."""
    desk = Desk(site, toy_study("pretraining.max_images=1", "alignment.shots=1"), "anna")
    row = next(row for row in desk.rows.values() if row.role == "not in this study")
    before = desk.told(row)
    Image.new("L", (48, 48)).save(row.record.image)
    with pytest.raises(DataError, match="has changed since"):
        pictures.small(desk, row)
    assert desk.told(row) == before


def test_regions_are_those_of_images_that_are_learnt_from_shots_first(desk):
    shown = [desk.rows[key].role for key in regions.keys(desk)]
    assert shown == ["shot"] * 4 + ["unlabelled"] * 4


def test_rejected_regions_are_kept_by_what_they_were_found_by(desk):
    key = regions.keys(desk)[0]
    found = regions.regions(desk, key)["regions"]
    assert [each["place"] for each in found] == [0, 1] and found[0]["share"] >= found[1]["share"]
    regions.judge(desk, key, [1], "reject")
    assert [each["verdict"] for each in regions.regions(desk, key)["regions"]] == [None, "reject"]
    (places,) = desk.standing.regions.values()
    assert places == {1}


def test_kappa_is_that_of_cohen():
    """Cohen (1960): po = 0.7, pe = 0.5 · 0.6 + 0.5 · 0.4 = 0.5."""
    pairs = [("accept", "accept")] * 20 + [("accept", "reject")] * 5
    pairs += [("reject", "accept")] * 10 + [("reject", "reject")] * 15
    one, other = map(list, zip(*pairs, strict=True))
    assert agreement.kappa(one, other) == pytest.approx(0.4)
    assert agreement.kappa(["accept"] * 3, ["accept"] * 3) is None


def test_agreement_counts_what_both_have_looked_at_and_names_what_they_differ_in(desk, second):
    keys = [key_of(desk, f"{number}.png") for number in (1, 2, 3)]
    for each, said in zip(keys, ("round", "round", "square"), strict=True):
        labels.give_label(desk, each, said)
    for each, said in zip(keys[1:], ("round", "round"), strict=True):
        labels.give_label(second, each, said)
    told = agreement.agreement(desk)
    (pair,) = told["pairs"]
    assert (pair["reviewers"], pair["things"], pair["same"]) == (["anna", "ben"], 2, 1)
    assert pair["kappa"] == 0.0
    (differ,) = told["differ"]
    assert differ["key"] == keys[2] and differ["said"] == {"anna": "square", "ben": "round"}
