"""What folders are taken for."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.unit.hica_client.intake.exports import blob, write_dicom

from hica_client.intake import intake, reasons
from hica_client.intake.class_words import are_classes
from hica_client.intake.meant import Folders

PERSONS = [
    tuple(f"{name}/1.png" for name in names)
    for names in (
        ("Huber Hans", "Meier Karl", "Schmidt Anna"),
        ("Huber_Hans", "Meier-Karl"),
        ("huber", "meier"),
        ("huber hans", "meier karl"),
        ("HUBER", "MEIER"),
        ("HuberHans", "MeierKarl"),
        ("Huber, H", "Meier, K"),
        ("benign", "Huber"),
        ("normal", "h m"),
        ("train/Huber", "train/Meier"),
        ("1", "2", "3"),
        ("P1", "P2"),
        ("Normal Benign", "Mass Cyst"),  # two words with capitals
        ("王小东", "李雷"),
    )
]
CLASSES = [
    ("benign", "malignant", "normal"),
    ("NORMAL", "PNEUMONIA"),
    ("COVID", "normal"),
    ("COVID-19", "non-covid"),
    ("no_finding", "mass"),
    ("gutartig", "bösartig"),
    ("0", "1", "2"),
    ("a", "b"),
    ("grade 1", "grade 2b", "birads4"),
]


def draw(folder, *names):
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blob(seed)).save(path)
    return folder


def rows_of(hospital, *columns):
    return sorted(tuple(row[name] for name in columns) for row in hospital.rows)


def test_one_folder_a_class(hospital, tmp_path):
    source = draw(tmp_path / "x", "benign/1.png", "benign/7/2.png", "benign/7/3.png",
                  "no mass/4.jpg", "no mass/8/5.png")  # fmt: skip
    found = hospital.take(source)
    assert found.labels == {"benign": 3, "no mass": 2}
    assert (found.patients, found.without_patient) == (2, 2)


def test_splits_and_validation_is_learnt_from_where_there_is_a_test(hospital, tmp_path):
    names = [f"{split}/{name}/1.png" for split in ("Train", "val", "test") for name in "ab"]
    hospital.take(draw(tmp_path / "x", *names))
    assert rows_of(hospital, "split", "label") == [
        ("test", "a"), ("test", "b"), *[("train", "a")] * 2, *[("train", "b")] * 2
    ]  # fmt: skip


def test_without_a_test_validation_is_the_test(hospital, tmp_path):
    hospital.take(draw(tmp_path / "x", "train/a/1.png", "train/b/2.png", "valid/a/3.png"))
    assert rows_of(hospital, "split") == [("test",), ("train",), ("train",)]


@pytest.mark.parametrize(
    "names",
    [
        ("Smith^John/1.png", "Miller^Ann/2.png"),
        ("20240101/1.png", "20240102/2.png"),
        ("benign/1.png", "benign/2.png"),
        ("a/1.png", "b/2.png", "beside.png"),
        tuple(f"grade {number}/1.png" for number in range(21)),
        *PERSONS,
    ],
)
def test_folders_that_may_be_named_after_patients_are_no_classes(hospital, tmp_path, names):
    found = hospital.take(draw(tmp_path / "x", *names))
    assert not found.labels and found.unlabelled == len(names)
    assert any("folders were not taken for classes" in note for note in found.notes)


@pytest.mark.parametrize("names", CLASSES)
def test_folders_of_known_words_are_classes_and_are_named(hospital, tmp_path, names):
    found = hospital.take(draw(tmp_path / "x", *(f"train/{name}/1.png" for name in names)))
    assert found.labels == dict.fromkeys(sorted(names), 1)
    said = f"folders were taken for classes: {', '.join(sorted(names))}. If one of these is a pat"
    assert any(note.startswith(said) for note in found.notes)


@pytest.mark.parametrize(
    ("of_study", "names", "classes"),
    [
        (["spiculated", "round"], ("Spiculated", "round"), True),
        (["spiculated", "round"], ("spiculated", "benign"), False),
        (["a", "b", "c"], ("a", "b"), True),
        (["Huber Hans", "x"], ("Huber Hans", "x"), False),
    ],
)
def test_with_a_study_all_folders_are_classes_of_it(of_study, names, classes):
    assert are_classes(names, of_study) is classes


def test_the_study_is_that_of_the_start_kit(hospital, tmp_path, monkeypatch):
    source = draw(tmp_path / "x", "foo/1.png", "bar/2.png")
    study = SimpleNamespace(class_names=["foo", "bar"])
    assert not hospital.take(source).labels
    monkeypatch.setattr(intake, "read_kit", lambda folder: (None, study))
    assert hospital.take(source).labels == {"bar": 1, "foo": 1}


def test_what_the_folders_are_may_be_said(hospital, tmp_path):
    source = draw(tmp_path / "x", "Huber Hans/1.png", "Meier Karl/2.png")
    [note] = [note for note in hospital.take(source).notes if "not taken for classes" in note]
    assert "--folders classes" in note and "--folders patients" in note
    assert "Huber" not in note and b"Huber" not in hospital.manifest.read_bytes()
    found = hospital.take(source, folders=Folders.PATIENTS)
    assert not any("not taken for classes" in note for note in found.notes)
    found = hospital.take(source, folders=Folders.CLASSES)
    assert found.labels == {"Huber Hans": 1, "Meier Karl": 1}
    assert any("taken for classes: Huber Hans, Meier Karl." in note for note in found.notes)


def test_folders_of_dicom_are_no_classes_unless_that_is_said(hospital, tmp_path):
    for number in range(6):
        path = tmp_path / "x" / ("benign", "malignant")[number % 2] / f"{number}"
        write_dicom(path, blob(number), PatientID=f"{number % 2}")
    draw(tmp_path / "x", "benign/screen.png")
    assert not hospital.take(tmp_path / "x").labels
    found = hospital.take(tmp_path / "x", folders=Folders.CLASSES)
    assert found.labels == {"benign": 4, "malignant": 3}


def test_a_folder_with_a_patients_name_is_no_class(hospital, tmp_path):
    draw(tmp_path / "x", "benign/1.png", "benign/2.png", "normal/3.png")
    write_dicom(tmp_path / "x" / "benign" / "4", blob(9), PatientName="BENIGN^JOHN", PatientID="1")
    assert not hospital.take(tmp_path / "x").labels


def test_folders_as_patients(hospital, tmp_path):
    source = draw(tmp_path / "x", "a/1.png", "a/2.png", "b/3.png")
    found = hospital.take(source, folders=Folders.PATIENTS)
    assert (found.labels, found.patients, found.by_folder) == ({}, 2, 3)


def test_the_same_picture_in_two_classes_has_no_label(hospital, tmp_path):
    draw(tmp_path / "x", "a/1.png", "b/2.png", "b/3.png")
    (tmp_path / "x" / "b" / "1.png").write_bytes((tmp_path / "x" / "a" / "1.png").read_bytes())
    found = hospital.take(tmp_path / "x")
    assert (found.taken, found.labels) == (3, {"b": 2})
    assert found.skipped == {reasons.AGAIN: 1}
    assert any("1 picture lies in several classes and has no label" in note for note in found.notes)


def test_masks_are_not_taken_for_pictures(hospital, tmp_path):
    names = (
        "a/1.png",
        "a/1_mask.png",
        "a/2-mask_1.png",
        "b/3.png",
        "b/masks/3.png",
        "b/unmask.png",
    )
    found = hospital.take(draw(tmp_path / "x", *names))
    assert (found.labels, found.skipped) == ({"a": 1, "b": 2}, {reasons.MASK: 3})


def test_medmnist(hospital, tmp_path):
    arrays = {}
    for place, split in enumerate(("train", "val", "test")):
        images = [blob(10 * place + number, 28) for number in range(3)]
        arrays |= {
            f"{split}_images": np.array(images),
            f"{split}_labels": np.array([[0], [1], [1]]),
        }
    np.savez_compressed(tmp_path / "mnist.npz", **arrays)
    found = hospital.take(tmp_path / "mnist.npz", class_names=["normal", "mass"])
    assert (found.read, found.taken, found.labels) == (9, 9, {"mass": 6, "normal": 3})
    assert rows_of(hospital, "split").count(("test",)) == 3
    assert found.decoded == {"MedMNIST": 9}
    shown = {np.asarray(Image.open(path)).tobytes() for path in hospital.pictures}
    assert shown == {
        image.tobytes() for name in arrays if "images" in name for image in arrays[name]
    }
    before = hospital.content()
    again = hospital.take(tmp_path / "mnist.npz", class_names=["normal", "mass"])
    assert again.rows == {"added": 0, "updated": 0, "edited": 0}
    assert hospital.content() == before


def test_medmnist_of_volumes_colour_and_several_labels(hospital, tmp_path):
    volumes = np.stack([[blob(9 * n + z, 28) for z in range(28)] for n in range(2)])
    colour = np.stack([np.dstack([blob(n), blob(n + 50), blob(n + 90)]) for n in (3, 4)])
    np.savez(tmp_path / "x3d.npz", train_images=volumes, train_labels=np.array([[0], [1]]))
    np.savez(tmp_path / "rgb.npz", test_images=colour, test_labels=np.array([[0, 1], [1, 1]]))
    found = hospital.take(tmp_path / "x3d.npz")
    assert found.decoded == {"MedMNIST, middle slice": 2} and found.labels == {"0": 1, "1": 1}
    shown = {np.asarray(Image.open(path)).tobytes() for path in hospital.pictures}
    assert shown == {volumes[0, 14].tobytes(), volumes[1, 14].tobytes()}
    found = hospital.take(tmp_path / "rgb.npz")
    assert (found.taken, found.unlabelled) == (2, 2)
    assert any(
        np.array_equal(np.asarray(Image.open(path)), colour[0]) for path in hospital.pictures
    )


def test_a_medmnist_file_that_is_cut_short_or_holds_objects(hospital, tmp_path):
    images, labels = np.stack([blob(n, 28) for n in range(4)]), np.zeros((4, 1))
    (tmp_path / "x").mkdir()
    np.savez(
        tmp_path / "x" / "objects.npz", train_images=images, train_labels=labels.astype(object)
    )
    np.savez(tmp_path / "x" / "floats.npz", train_images=images / 255, train_labels=labels)
    np.savez(tmp_path / "x" / "few.npz", train_images=images, train_labels=labels[:2])
    np.savez(tmp_path / "x" / "good.npz", train_images=images, train_labels=labels)
    good = (tmp_path / "x" / "good.npz").read_bytes()
    (tmp_path / "x" / "cut.npz").write_bytes(good[:-90])
    (tmp_path / "x" / "changed.npz").write_bytes(good.replace(images[1].tobytes(), bytes(28 * 28)))
    found = hospital.take(tmp_path / "x")
    assert found.skipped == {reasons.NO_MEDMNIST: 5} and found.taken == 4
