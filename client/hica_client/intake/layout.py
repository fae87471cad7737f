"""What the folders of an export stand for: splits, classes, patients, or nothing.

In an archive's export folders are often named after patients. Their names are therefore read as
classes only where the tree looks like one folder a class and no name may be a person's, and nowhere
are they written otherwise.
"""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field

from hica_client.intake import reasons
from hica_client.intake.class_words import are_classes
from hica_client.intake.meant import Folders
from hica_client.intake.register import PICTURE, Register
from hica_client.intake.walk import Found

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
MOST_CLASSES = 20
MASK = re.compile(r"[_-](mask|seg|segmentation)s?(_?\d+)?(\.\w+)*$", re.IGNORECASE)
MASK_FOLDER = re.compile(r"^(masks?|labels?(tr|ts)?|segmentations?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a file lies, below the folder of its split."""

    split: str
    top: str
    """The folder that may be a class; empty: it lies in none."""
    below: str
    """The path of the folders below that; empty: there are none."""


def place_of(found: Found) -> Place:
    """Split `train/benign/7/a.png` into `train`, `benign` and `7`."""
    folders = found.folders
    split = SPLITS.get(folders[0].lower(), "") if folders else ""
    if split:
        folders = folders[1:]
    return Place(split, folders[0] if folders else "", "/".join(folders[1:]))


def mask_reason(found: Found) -> str:
    """Why a picture that is a mask by its name or folder is not taken."""
    by_folder = any(map(MASK_FOLDER.match, found.folders))
    return reasons.MASK if by_folder or MASK.search(found.name) else ""


@dataclass
class Tops:
    """Names of the folders that may be classes, by their handles; kept in memory only."""

    names: dict[str, str] = field(default_factory=dict)

    def see(self, handle: str, name: str) -> None:
        """Note a folder; of more than can be classes, the first ones."""
        if name and len(self.names) <= MOST_CLASSES:
            plain = name.encode(errors="replace").decode()
            self.names[handle] = unicodedata.normalize("NFC", plain)


def classes_of(
    register: Register, tops: Tops, meant: Folders, of_study: Collection[str] | None
) -> dict[str, str]:
    """The classes by the handles of their folders; none where folders are no classes.

    `of_study`: the classes of the site's study, if it has one.
    """
    if meant not in (Folders.AUTO, Folders.CLASSES):
        return {}
    of_pictures = {
        handle: (count, dicom, told)
        for handle, count, dicom, told in register.rows(
            "SELECT top, count(*), sum(dicom), max(told) "
            f"FROM sources WHERE run = ? AND {PICTURE} AND given = '' GROUP BY top",
            register.run,
        )
    }
    classes = {handle: tops.names[handle] for handle in of_pictures if handle in tops.names}
    if meant == Folders.CLASSES:
        return classes
    pictures = sum(count for count, *_ in of_pictures.values())
    dicom = sum(dicom for _, dicom, _ in of_pictures.values())
    looks_like = (
        len(classes) == len(of_pictures)  # none lies beside them, and they are not too many
        and 2 <= len(classes) <= MOST_CLASSES
        and 2 * dicom <= pictures
        and not any(told for _, _, told in of_pictures.values())
        and are_classes(classes.values(), of_study)
    )
    return classes if looks_like else {}


def name_owners(register: Register, classes: dict[str, str], meant: Folders) -> None:
    """Say whose each picture is: by its header, else by its study, else by its folder, else nobody.

    Where folders are classes, a folder below the class is a patient.
    """
    register.change("UPDATE sources SET owner = patient, left_out = '' WHERE run = ?", register.run)
    nameless = f"run = ? AND owner = '' AND {PICTURE}"
    folder = "below" if classes else "CASE below WHEN '' THEN top ELSE below END"
    several = register.value(
        f"SELECT count(DISTINCT {folder}) FROM sources WHERE {nameless} AND {folder} != ''",
        register.run,
    )
    if meant == Folders.IGNORE or (several < 2 and meant != Folders.PATIENTS):
        return
    register.change(f"UPDATE sources SET owner = {folder} WHERE {nameless}", register.run)
