from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.hica_client.hospitals import messages

from hica.errors import ConfigurationError
from hica.images.looks import ALL_BLACK, DIM, Look
from hica.images.manifest import Record
from hica.regions import build
from hica_client import contact_sheet
from hica_client.contact_sheet import (
    CLASSES,
    FLAGGED,
    LOOKS_WRONG,
    OF_A_CLASS,
    PLAIN,
    UNLABELLED,
    Shown,
    check_place,
    sample,
    write_sheet,
)
from hica_client.preflight_images import Seen
from hica_client.sheet_layout import OUTLINES, draw_sheet
from hica_client.site import load_site
from hica_client.withdrawal import withdraw


def seen(number: int, label: str | None, *flags) -> Seen:
    record = Record(Path(f"{number}.png"), label=label, name=f"{number}.png")
    return Seen(record, Look(9, 9, str(number), flags), "PNG", (), None)


def names(rows) -> list[str]:
    return [each.record.name for each in rows]


def test_what_looks_wrong_comes_first_some_of_each_kind_the_blank_ones_before():
    rows = [*(seen(n, "a", DIM) for n in range(30)), *(seen(n, "b", ALL_BLACK) for n in (30, 31))]
    chosen = sample([*rows, seen(32, "a"), seen(33, "a")], {"33.png": "has two labels"})
    assert list(chosen) == [LOOKS_WRONG, "class a", "class b", UNLABELLED]
    wrong = names(chosen[LOOKS_WRONG])
    assert wrong[:4] == ["30.png", "0.png", "33.png", "31.png"] and len(wrong) == FLAGGED
    assert names(chosen["class a"]) == ["32.png"]


def test_a_sample_is_of_bounded_size_and_spread_over_all():
    rows = [seen(n, f"c{n % 40}" if n % 41 else None) for n in range(5000)]
    chosen = sample(rows, {})
    assert len(chosen) == CLASSES + 2
    assert max(map(len, chosen.values())) == OF_A_CLASS
    of_one = [seen(n, "a") for n in range(800)]
    assert names(sample(of_one, {})["class a"]) == [f"{n}.png" for n in range(0, 800, 100)]


def test_check_writes_it_into_the_state_for_its_owner_alone(check, hospital):
    code, found = check(hospital)
    path = hospital.parent / "state" / "contact-sheet.png"
    assert code == 0 and found["contact_sheet"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Image.open(path).format == "PNG"


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: (title, lines, sections)."""
    calls = []

    def draw(title, lines, sections):
        calls.append((title, lines, [section for section in sections if section.tiles]))
        return draw_sheet(title, lines, sections)

    monkeypatch.setattr(contact_sheet, "draw_sheet", draw)
    return calls


def test_without_a_study_it_shows_the_whole_image_with_its_mask(check, hospital, drawn):
    Image.new("L", (48, 40)).save(hospital.parent / "malignant-4.png")
    check(hospital)
    ((title, lines, sections),) = drawn
    assert title == "st-elsewhere: 10 images, each as a whole"
    assert "do not send it on" in lines[0] and "the masks of the manifest" in lines[1]
    assert [section.title for section in sections] == [
        "looks wrong: 1 of 1",
        "class benign: 5 of 5",
        "class malignant: 4 of 5",
    ]
    wrong = sections[0].tiles[0]
    assert (wrong.lines, wrong.warning) == (["class malignant", "malignant-4.png"], "all black")
    masked, bare = (np.asarray(each.image) for each in sections[1].tiles[:2])
    yellow = tuple(int(OUTLINES[0][at : at + 2], 16) for at in (1, 3, 5))
    assert (masked == yellow).all(-1).any() and not (bare == yellow).all(-1).any()
    assert (bare[:10] == 0).all()  # wider than high: the rest is black


def test_with_a_study_it_shows_what_the_model_is_given(check, hospital, study, drawn):
    study.write_text(study.read_text() + '[regions]\nmethod = "grid"\n')
    check(hospital, "--study", study)
    ((title, lines, sections),) = drawn
    assert title.endswith("as the model of masses is shown them")
    assert lines[1].startswith("Each square is 64 × 64 px to the model: both sides made equal.")
    assert "regions by the method grid; the largest is yellow" in lines[1]
    image = np.asarray(sections[0].tiles[0].image)
    assert (image == tuple(int(OUTLINES[1][at : at + 2], 16) for at in (1, 3, 5))).all(-1).any()


def test_a_slow_method_is_run_on_a_few_images(hospital, tmp_path):
    site = load_site(hospital)
    runs = []
    grid = build("grid")

    def method(pixels, mask, count):
        runs.append(count)
        return grid(pixels, mask, count)

    records = [Record(hospital.parent / f"benign-{n}.png", label="benign") for n in range(5)]
    looks = [Seen(record, Look(48, 40, record.name, ()), "PNG", (), None) for record in records]
    for name, marks, expected in (
        ("sam", {}, 4),
        ("grid", {}, 5),
        ("hf-sam", {"benign-0.png": "is there twice", "benign-1.png": "is there twice"}, 3),
    ):
        runs.clear()
        shown = Shown("masses", PLAIN, method, 4, name)
        write_sheet(tmp_path / "s.png", site, looks, marks, shown)
        assert len(runs) == expected


def test_classes_that_have_no_place_are_counted(hospital, tmp_path, drawn):
    records = [Record(hospital.parent / f"benign-{n % 5}.png", label=f"c{n}") for n in range(14)]
    looks = [Seen(record, Look(48, 40, "1", ()), "PNG", (), None) for record in records]
    write_sheet(tmp_path / "s.png", load_site(hospital), looks, {}, None)
    ((_, lines, sections),) = drawn
    assert lines[-1] == "2 more classes are not shown." and len(sections) == CLASSES


def test_sheet_says_where(check, hospital, tmp_path):
    code, found = check(hospital, "--sheet", tmp_path / "of" / "mine.png")
    assert code == 0 and found["contact_sheet"] == str(tmp_path / "of" / "mine.png")
    assert not (hospital.parent / "state" / "contact-sheet.png").exists()
    assert check(hospital, "--sheet", tmp_path / "of" / "mine.png")[0] == 0  # the same again


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "benign-1.png",
            "benign-1.png: another file is there and is left alone; give another name",
        ),
        ("sheet.jpg", "sheet.jpg: give the file the suffix .png"),
        ("manifest.csv", "manifest.csv: give the file the suffix .png"),
    ],
)
def test_no_other_file_is_written_over(run_command, hospital, name, words):
    path = hospital.parent / name
    before = path.read_bytes() if path.exists() else None
    code, _, err = run_command("check", hospital, "--sheet", path)
    assert code == 2 and words in " ".join(err.split())
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_new_place_and_an_old_sheet_are_fine(tmp_path):
    check_place(tmp_path / "new.PNG")
    (tmp_path / "old.png").write_bytes(draw_sheet("a", [], []))
    check_place(tmp_path / "old.png")
    with pytest.raises(ConfigurationError, match=r"--sheet .*: give the file the suffix"):
        check_place(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_problem(check, hospital, tmp_path):
    (tmp_path / "file").write_text("")
    code, found = check(hospital, "--sheet", tmp_path / "file" / "sheet.png")
    assert code == 7 and "sheet.png: cannot be written" in messages(found)[0]


def test_who_withdraws_is_on_no_sheet(check, hospital, drawn):
    """Neither on one that is there, nor, under any name, on a new one."""
    check(hospital)
    site = load_site(hospital)
    assert site.contact_sheet.exists()
    kept = (hospital.parent / "benign-0.png").read_bytes()
    withdraw(site, "benign-0", "me")
    assert not site.contact_sheet.exists()
    (hospital.parent / "again.png").write_bytes(kept)
    with (hospital.parent / "manifest.csv").open("a") as file:
        file.write("again.png,benign,again,train,,\n")
    check(hospital)
    shown = [tile.lines[1] for section in drawn[-1][2] for tile in section.tiles]
    assert len(shown) == 9 and "again.png" not in shown


def test_an_image_that_has_gone_meanwhile_is_left_out(hospital, tmp_path, drawn):
    record = Record(hospital.parent / "benign-1.png", label="benign")
    looks = [Seen(record, Look(48, 40, "1", ()), "PNG", (), None), seen(1, "benign")]
    write_sheet(tmp_path / "s.png", load_site(hospital), looks, {}, None)
    assert [section.title for section in drawn[0][2]] == ["class benign: 1 of 2"]
