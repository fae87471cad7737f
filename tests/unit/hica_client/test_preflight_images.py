import numpy as np
import pytest
from PIL import Image
from tests.unit.hica_client.hospitals import change, messages

from hica.images.decode import Picture, read_picture
from hica_client import preflight_images


def paint(site, name: str, level: int = 0) -> None:
    Image.new("L", (48, 40), level).save(site.parent / name)


def test_a_labelled_image_that_shows_nothing_is_a_problem(check, hospital):
    """`check` said `ready`."""
    paint(hospital, "benign-1.png", 0)
    paint(hospital, "malignant-1.png", 0)
    paint(hospital, "malignant-2.png", 128)
    code, found = check(hospital)
    black, grey = found["problems"]
    manifest = hospital.parent / "manifest.csv"
    assert code == 3
    assert black["message"] == (
        f"{manifest}: all black: 2 labelled images (benign-1.png, malignant-1.png): the window, "
        "the rescale or one extreme pixel may have taken the rest with it: export it anew, or "
        "take its row out"
    )
    assert black["places"] == ["benign-1.png", "malignant-1.png"]
    assert grey["message"].startswith(f"{manifest}: one grey: 1 labelled image (malignant-2.png): ")
    assert found["flags"] == {
        "all black": ["benign-1.png", "malignant-1.png"],
        "one grey": ["malignant-2.png"],
    }


def test_one_without_label_and_what_may_be_meant_is_a_note(check, hospital):
    paint(hospital, "benign-1.png", 0)
    change(hospital, "benign-1.png,benign", "benign-1.png,")
    dim = np.random.default_rng(0).integers(100, 120, (40, 48), dtype=np.uint8)
    Image.fromarray(dim).save(hospital.parent / "malignant-1.png")
    code, found = check(hospital)
    assert (code, found["problems"]) == (0, [])
    assert [note.partition(")")[0] for note in found["notes"]] == [
        "all black: 1 image (benign-1.png",
        "very low contrast: 1 image (malignant-1.png",
    ]


def test_what_was_chosen_in_files_is_told_once_with_a_count(check, hospital, monkeypatch):
    def read(path):
        number = path.stem[-1]
        note = f"has {number} frames, the middle one is taken"
        return Picture(*read_picture(path)[:2], notes=(note,) if number in "123" else ())

    monkeypatch.setattr(preflight_images, "read_picture", read)
    code, found = check(hospital)
    assert code == 0
    assert found["notes"] == [
        "has 1 frames, the middle one is taken (6: benign-1.png, benign-2.png, benign-3.png, "
        "malignant-1.png and 2 more)"
    ]
    (names,) = found["read_notes"].values()
    assert len(names) == 6


def test_files_that_cannot_be_decoded_for_one_reason_are_one_problem(check, hospital):
    for number in range(5):
        (hospital.parent / f"benign-{number}.png").write_bytes(b"")
    Image.new("L", (9, 10)).save(hospital.parent / "m.png")
    Image.new("L", (11, 12)).save(hospital.parent / "n.png")
    change(
        hospital,
        "malignant-0.png,malignant,malignant-0,train,",
        "malignant-0.png,malignant,malignant-0,train,m.png",
    )
    change(
        hospital,
        "malignant-1.png,malignant,malignant-1,train,",
        "malignant-1.png,malignant,malignant-1,train,n.png",
    )
    code, found = check(hospital)
    broken, mask = messages(found)
    assert code == 3
    assert broken.startswith(f"{hospital.parent / 'benign-0.png'}: ")
    assert broken.endswith(
        "(and so in 4 more images: benign-1.png, benign-2.png, benign-3.png, benign-4.png)"
    )
    assert "the mask is 9×10 px" in mask
    assert mask.endswith("(and so in 1 more images: malignant-1.png)")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_person_reads_counts_and_a_machine_all_names(run_command, hospital, as_json):
    for number in range(5):
        paint(hospital, f"benign-{number}.png", 0)
    _, out, _ = run_command("check", hospital, *(["--json"] if as_json else []))
    assert (out.count("benign-4.png") > 0) == as_json
    assert as_json or "all black 5" in " ".join(out.split())
