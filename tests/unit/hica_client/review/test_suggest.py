import csv
import io

import pytest

from hica.errors import DataError
from hica_client.review.labels import give_label, judge_image
from hica_client.review.page import Search
from hica_client.review.suggest import as_csv, suggestions


def names(found):
    return [each.row.record.name for each in found]


def test_images_without_a_label_are_suggested_and_no_others(desk):
    found = suggestions(desk, 10)
    assert sorted(names(found)) == ["6.png", "7.png"]
    rows = list(csv.DictReader(io.StringIO(as_csv(found).decode())))
    assert [row["image"] for row in rows] == names(found)
    assert float(rows[0]["typicality"]) > 0 and 0 <= float(rows[0]["uncertainty"]) <= 1


def test_who_has_got_a_label_or_was_rejected_is_not_suggested_again(desk):
    key = {row.record.name: key for key, row in desk.rows.items()}
    give_label(desk, key["6.png"], "")
    assert names(suggestions(desk, 10)) == ["7.png"]
    judge_image(desk, key["7.png"], "reject")
    with pytest.raises(DataError, match="no image without a label to choose from"):
        suggestions(desk, 10)


def test_an_image_that_cannot_be_read_is_passed_over(desk, site):
    (site.data.manifest.parent / "6.png").write_text("no image")
    assert names(suggestions(desk, 10)) == ["7.png"]


def test_the_page_looks_in_a_thread_of_its_own_and_says_what_went_wrong(desk):
    search = Search(desk)
    assert search.told()["working"] or search.told()["images"]
    search._thread.join()
    assert {each["name"] for each in search.told()["images"]} == {"6.png", "7.png"}
    for key, row in desk.rows.items():
        if not row.record.label:
            give_label(desk, key, "round")
    broken = Search(desk)
    broken.told()
    broken._thread.join()
    assert "no image without a label" in broken.told()["error"]
    assert not broken.told()["working"]
