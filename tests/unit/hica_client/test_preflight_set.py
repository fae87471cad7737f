import re
from pathlib import Path

import pytest
from tests.unit.hica_client.hospitals import change, messages

from hica.images.looks import Look
from hica.images.manifest import Record
from hica_client.preflight_images import Seen
from hica_client.preflight_report import Preflight
from hica_client.preflight_set import check_set

M = Path("m.csv")
REAL = Path(__file__).parents[4] / "shared" / "data" / "bus_breast"


def row(number: int, label: str | None = "a", **fields: str) -> Record:
    name = f"{number}.png"
    fields = {"patient_id": f"p{number}"} | fields
    return Record(Path(name), label=label, name=name, **fields)


def seen(record: Record, look: str = "", kind: str = "PNG", size=(64, 64), masked=None) -> Seen:
    return Seen(record, Look(*size, look or record.name, ()), kind, (), masked)


def looked(*each: Seen) -> tuple[list[str], list[str], dict[str, str]]:
    """Problems, notes and marks of images."""
    found = Preflight()
    marks = check_set(found, [one.record for one in each], each, M)
    return [str(problem) for problem in found.problems], found.notes, marks


def both(count: int = 6, **fields) -> list[Seen]:
    """As many images of two classes, each of its own patient."""
    return [seen(row(number, "ab"[number % 2], **fields)) for number in range(2 * count)]


def test_an_ordinary_set_is_nothing_to_speak_of():
    assert looked(*both()) == ([], [], {})
    assert looked(*both(), seen(row(90, None)), seen(row(91, None))) == ([], [], {})


def test_one_patient_for_all_is_a_problem():
    (problem,), _, _ = looked(*both(patient_id="ANON"))
    assert "m.csv: column patient_id: all 12 labelled images are of one patient, 'ANON'" in problem
    assert looked(*(seen(row(n, None, patient_id="x")) for n in range(3)))[0] == []


def test_a_patient_with_most_of_the_images_is_noted():
    rows = [row(n, "ab"[n % 2], patient_id="0" if n < 15 else str(n)) for n in range(20)]
    problems, (note,), _ = looked(*map(seen, rows))
    assert problems == [] and note.startswith("15 of 20 labelled images are of one patient, '0'")


def test_one_class_only_is_noted():
    _, notes, _ = looked(*(seen(row(number)) for number in range(3)))
    assert notes == ["all labelled images are of one class, a: nothing is told apart here"]


def split(**sides: str) -> list[Seen]:
    """Two images of each class of a side, for example `train="ab"`."""
    rows = [
        row(100 * at + 2 * number + copy, label, split=side)
        for at, (side, labels) in enumerate(sides.items())
        for number, label in enumerate(labels)
        for copy in range(2)
    ]
    return [seen(each) for each in rows]


def test_a_test_of_one_class_is_a_problem_and_a_class_on_one_side_is_noted():
    (problem,), _, _ = looked(*split(train="ab", test="b"))
    assert "m.csv: column split: the test has images of b only, of a, b" in problem
    assert looked(*split(train="abc", test="ab"))[:2] == (
        [],
        ["the side test of the split has no image of c"],
    )
    assert looked(*split(train="a", test="ab"))[:2] == (
        [],
        ["the side train of the split has no image of b"],
    )
    assert looked(*split(train="ab", test="ab"))[:2] == ([], [])


def test_labels_that_look_alike_are_noted():
    rows = [row(n, label) for n, label in enumerate(["Benign", "benign", "benign", "be nign", "x"])]
    _, (note,), _ = looked(*map(seen, rows))
    assert "'Benign' (1), 'be nign' (1), 'benign' (2): write them the same way" in note


def test_one_picture_under_two_labels_is_a_problem():
    """Whatever the files are called."""
    one, other = row(80, "a", patient_id="p"), row(81, "b", patient_id="p")
    problems, notes, marks = looked(*both(), seen(one, "same"), seen(other, "same"))
    assert notes == [] and len(problems) == 1
    assert "column label: 1 picture is under two labels: 80.png = 81.png: correct" in problems[0]
    assert marks == dict.fromkeys(("80.png", "81.png"), "has two labels")


def test_one_picture_under_two_patients_is_a_problem_unless_they_are_linked():
    pairs = [seen(row(80 + n), f"same {n // 2}") for n in range(4)]
    (problem,), _, marks = looked(*both(), *pairs)
    assert "2 pictures are under two patients: 80.png = 81.png, 82.png = 83.png: " in problem
    assert set(marks.values()) == {"of two patients"} and len(marks) == 4
    linked = [seen(row(80 + n, group="g"), "same") for n in range(2)]
    assert looked(*both(), *linked) == ([], [], {})


def test_a_copy_without_patient_is_noted():
    pair = [seen(row(80, patient_id=""), "same"), seen(row(81), "same")]
    pair[0] = seen(Record(Path("80.png"), label="a", name="80.png"), "same")
    problems, (note,), marks = looked(*both(), *pair)
    assert problems == [] and note.startswith("1 picture is there more than once: 80.png = 81.png")
    assert set(marks.values()) == {"is there twice"}


def test_masks_that_are_empty_or_cover_all_are_noted():
    rows = [row(n, "a" if n < 6 else "b") for n in range(12)]
    shares = [0.0, 1.0, 0.2, 0.2, 0.2, 0.2, *[0.0] * 6]
    looks = [seen(one, masked=share) for one, share in zip(rows, shares, strict=True)]
    problems, (empty, whole), marks = looked(*looks)
    assert problems == []
    assert empty.startswith("1 masks are empty, unlike others of the class: 0.png: ")
    assert whole.startswith("1 masks cover the whole image: 1.png: ")
    assert marks == {"0.png": "the mask is empty", "1.png": "the mask covers all"}


@pytest.mark.parametrize(
    ("of_a", "of_b", "words"),
    [
        (
            {"kind": "PNG, 8-bit grey"},
            {"kind": "DICOM, its first window"},
            "images of a are PNG, 8-bit grey, those of b DICOM, its first window: a model can",
        ),
        (
            {"size": (100, 100)},
            {"size": (250, 200)},
            "images of a are 100×100 px, those of b 250×200 px: .* at the same resolution",
        ),
        ({"size": (100, 100)}, {"size": (100, 110)}, "images of a are 100×100 px, those of b"),
    ],
)
def test_classes_that_differ_in_how_files_are_made_are_noted(of_a, of_b, words):
    """A shortcut that a model would learn."""
    looks = [seen(row(n, "ab"[n % 2]), **(of_b if n % 2 else of_a)) for n in range(12)]
    problems, (note,), _ = looked(*looks)
    assert problems == [] and re.match(words, note)
    few = [seen(row(n, "ab"[n % 2]), **(of_b if n % 2 else of_a)) for n in range(8)]
    assert looked(*few)[1] == []


def test_many_sizes_in_each_class_are_no_shortcut():
    looks = [seen(row(n, "ab"[n % 2]), size=(100 + n, 120 - n)) for n in range(20)]
    assert looked(*looks)[1] == []


def test_of_many_classes_one_pair_stands_for_all():
    looks = [seen(row(n, f"c{n % 12:02}"), kind=f"kind {n % 12}") for n in range(60)]
    (note,) = looked(*looks)[1]
    assert note.startswith("images of c00 are kind 0, those of c01 kind 1 (and so of 65 more pairs")


def test_check_looks_at_the_set(check, hospital):
    """It said `ready` of one picture with two labels, and of one patient for all."""
    copied = (hospital.parent / "benign-1.png").read_bytes()
    (hospital.parent / "malignant-1.png").write_bytes(copied)
    code, found = check(hospital)
    assert code == 3 and len(messages(found)) == 2
    assert found["copies"] == [["benign-1.png", "malignant-1.png"]]
    assert found["problems"][0]["places"] == ["benign-1.png", "malignant-1.png"]


def test_a_class_of_the_study_without_images_is_noted(check, hospital, study):
    study.write_text(
        study.read_text() + '[[classes]]\nname = "normal"\nprompts = ["tissue"]\nfindings = []\n'
    )
    _, found = check(hospital, "--study", study)
    assert "no image here is of normal: this site can neither teach nor test that" in found["notes"]


def test_a_study_whose_test_has_one_class_here_is_noted(check, hospital, study):
    for number in (3, 4):
        change(hospital, f"malignant-{number}.png,malignant,", f"malignant-{number}.png,,")
    code, found = check(hospital, "--study", study)
    assert code == 3 and "the test has images of benign only" in messages(found)[0]
    assert any("holds out no image of malignant and" in note for note in found["notes"])


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is absent")
def test_no_false_alarm_on_a_real_set(check, hospital):
    change(hospital, 'manifest = "manifest.csv"', f'manifest = "{REAL}/manifest.csv"', "site.toml")
    code, found = check(hospital)
    assert (code, found["problems"], found["flags"], found["copies"]) == (0, [], {}, [])
    (note,) = found["notes"]
    assert "columns that are not read: source" in note
