import io

import numpy as np
from PIL import Image
from tests.unit.hica_client.review.conftest import HOSTILE

from hica.images.cache import file_sha256
from hica_client.review.pictures import SMALL
from hica_client.withdrawal import withdraw


def keys(desk):
    return {row.record.name: key for key, row in desk.rows.items()}


def test_the_desk_says_whose_it_is(browser):
    told = browser.get("/api/desk").json()
    assert (told["site"], told["study"], told["reviewer"]) == ("north", "toy", "anna")
    assert (told["images"], told["classes"]) == (16, ["round", "square"])


def test_hostile_fields_leave_as_json_and_never_stand_in_html(browser, desk):
    assert HOSTILE not in browser.get("/").text
    answer = browser.get("/api/images", params={"label": "round"})
    assert answer.headers["content-type"] == "application/json"
    (first,) = (each for each in answer.json()["images"] if each["name"] == HOSTILE)
    assert first["key"].isalnum() and browser.get(f"/small/{first['key']}").status_code == 200
    said = browser.post("/api/clusters/0", json={"verdict": "accept", "name": "<b>x</b>"})
    assert said.headers["content-type"] == "application/json"
    assert said.json()["clusters"][0]["name"] == "<b>x</b>"


def test_pictures_are_the_pixels_that_the_model_is_given(browser, desk, site):
    key = keys(desk)[HOSTILE]
    answer = browser.get(f"/large/{key}")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"), dtype=float)
    size = desk.pipeline.tower.tower.preprocess.size
    with Image.open(site.data.manifest.parent / HOSTILE) as raw:
        trained = np.asarray(raw.resize(shown.shape, Image.Resampling.BICUBIC), dtype=float)
    assert size != raw.size[0] and np.corrcoef(shown.ravel(), trained.ravel())[0, 1] > 0.9
    small = browser.get(f"/small/{key}").content
    assert Image.open(io.BytesIO(small)).size == (SMALL, SMALL)


def test_a_picture_is_drawn_once_and_goes_when_the_patient_withdraws(browser, desk, site):
    key = keys(desk)["1.png"]
    image = file_sha256(site.data.manifest.parent / "1.png")
    first = browser.get(f"/small/{key}").content
    (kept,) = site.data.cache.glob(f"{image[:2]}/{image}-*.jpg")
    assert kept.read_bytes() == first and kept.stat().st_mode & 0o77 == 0
    kept.write_bytes(b"kept")
    assert browser.get(f"/small/{key}").content == b"kept"
    withdraw(site, "p1", "anna")
    assert not kept.exists()
    gone = browser.get(f"/small/{key}")
    assert gone.status_code == 409 and "not in the manifest any more" in gone.json()["error"]
    assert browser.get("/api/desk").json()["images"] == 15


def test_an_image_that_was_exchanged_is_not_shown(browser, desk, site):
    key = keys(desk)["1.png"]
    Image.new("L", (48, 48)).save(site.data.manifest.parent / "1.png")
    answer = browser.get(f"/large/{key}")
    assert answer.status_code == 409 and "has changed since" in answer.json()["error"]


def test_what_is_not_understood_is_refused_and_changes_nothing(browser, desk):
    key = keys(desk)["1.png"]
    for path, body in (
        ("/api/clusters/0", {"verdict": "burn", "name": ""}),
        ("/api/clusters/0", {"verdict": "accept", "name": "x" * 81}),
        ("/api/clusters/0", {"verdict": "accept", "name": "", "more": 1}),
        ("/api/clusters/one", {"verdict": "accept"}),
        ("/api/images/KEY", {}),
        ("/api/images/KEY/label", {"label": 1}),
        ("/api/regions/KEY", {"places": "0", "verdict": "accept"}),
        ("/api/regions/KEY", {"places": [True], "verdict": "accept"}),
    ):
        answer = browser.post(path.replace("KEY", key), json=body)
        assert answer.status_code == 422
        assert answer.json() == {"error": "not understood: load the page again"}
    assert desk.standing.all == ()


def test_what_is_not_there_is_refused_in_words(browser, desk):
    key = keys(desk)["1.png"]
    for path, body, words in (
        ("/api/clusters/7", {"verdict": "accept"}, "this cluster is not there any more"),
        ("/api/images/nobody", {"verdict": "reject"}, "not in the manifest any more"),
        (f"/api/images/{key}/label", {"label": "cyst"}, "'cyst': the classes are round, square"),
        (f"/api/regions/{key}", {"places": [2], "verdict": "reject"}, "this image has 2 regions"),
        (f"/api/regions/{key}", {"places": [-1], "verdict": "reject"}, "has 2 regions"),
    ):
        answer = browser.post(path, json=body)
        assert answer.status_code == 409 and words in answer.json()["error"]
    assert browser.get(f"/outline/{key}/9").status_code == 409
    assert browser.get(f"/outline/{key}/-1").status_code == 409
    assert desk.standing.all == ()


def test_a_record_that_was_changed_is_said_and_nothing_is_added(browser, desk, site):
    browser.post(f"/api/images/{keys(desk)['1.png']}", json={"verdict": "reject"})
    site.decisions.write_bytes(site.decisions.read_bytes().replace(b"reject", b"accept"))
    answer = browser.get("/api/clusters")
    assert answer.status_code == 409 and "was changed" in answer.json()["error"]
