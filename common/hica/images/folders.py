"""folders: images in folders as exports leave them, one folder per class where they have labels.

Whether a file is an image is told by its content: scanners and archives name DICOM files
`IM000001`, by their UID or `.ima`. What is no image, and what systems leave beside images, is
passed over, and each is counted with the reason.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hica.errors import DataError
from hica.images.manifest import Record
from hica.images.sniff import holds_picture, kind_of
from hica.printable import listed
from hica.progress import track

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".nii", ".nii.gz")
"""Files that are meant to be images: a damaged one is taken, so that `check` says what is wrong."""
LEFT_BY_SYSTEMS = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "system volume information", "lost+found", "@eadir"),
}
"""Files and folders, in small letters, that no person has put there."""

HIDDEN = "hidden: the name begins with a dot"
SYSTEM = "left by an operating system"
LINK = "a link to another folder"
CLOSED = "cannot be read by this user"
NO_IMAGE = "no image, by their content"
NO_PICTURE = "DICOM without a picture, such as a DICOMDIR or a report"
NO_CLASS = "in no folder of a class"


class Found(NamedTuple):
    """What a folder holds."""

    records: list[Record]
    """The images, each labelled by its folder, in the order of their names."""
    passed_over: Mapping[str, list[str]]
    """Files, or folders with all they hold, by the reason why they are not taken."""

    @property
    def notes(self) -> list[str]:
        """What was passed over, in words."""
        return [
            f"passed over: {len(names):,} ({reason}): {listed(names)}"
            for reason, names in self.passed_over.items()
        ]


def records_from_folders(root: Path) -> Found:
    """Records of images laid out as one folder per class: `root/CLASS/…`, by their content.

    Raises:
        DataError: No folder below `root` holds an image.
    """
    found = records_below(root)
    passed = dict(found.passed_over)
    records = [
        replace(record, label=record.name.split("/")[0])
        for record in found.records
        if "/" in record.name
    ]
    if above := [record.name for record in found.records if "/" not in record.name]:
        passed[NO_CLASS] = above
    if not records:
        raise DataError(
            f"{root}: no images found; expected one folder per class holding "
            f"{', '.join(SUFFIXES)} files, or images under any name"
            + "".join(f"; {note}" for note in Found([], passed).notes)
        )
    return Found(records, passed)


def records_below(root: Path) -> Found:
    """Records of all images below a folder, without labels, by their content."""
    passed: defaultdict[str, list[str]] = defaultdict(list)
    records: list[Record] = []
    files = sorted(_files(root, passed))
    for file in track(files, "looking at files", len(files)) if len(files) > 500 else files:
        name = file.relative_to(root).as_posix()
        if reason := _why_not(file):
            passed[reason].append(name)
        else:
            records.append(Record(image=file, name=name))
    return Found(records, passed)


def _files(root: Path, passed: defaultdict[str, list[str]]) -> Iterator[Path]:
    """All files below a folder that people have put there; the others are added to `passed`."""

    def closed(error: OSError) -> None:
        folder = Path(error.filename)
        passed[CLOSED].append(f"{folder.relative_to(root).as_posix()}/")

    for folder, folders, files in os.walk(root, onerror=closed):
        here = Path(folder)
        for name in sorted(folders):
            reason = LINK if (here / name).is_symlink() else _why_not_named(name)
            if reason:
                folders.remove(name)
                inside = sum(len(names) for _, _, names in os.walk(here / name))
                whole = (here / name).relative_to(root).as_posix()
                passed[reason].append(f"{whole}/ with {inside:,} files")
        for name in sorted(files):
            if reason := _why_not_named(name):
                passed[reason].append((here / name).relative_to(root).as_posix())
            else:
                yield here / name


def _why_not_named(name: str) -> str:
    """Why a file or folder of this name is not taken; empty where it is looked at."""
    if name.casefold() in LEFT_BY_SYSTEMS:
        return SYSTEM
    return HIDDEN if name.startswith(".") else ""


def _why_not(file: Path) -> str:
    """Why a file is not taken; empty where it is."""
    named_so = file.name.lower().endswith(SUFFIXES)
    try:
        kind = kind_of(file) if file.is_file() else None
    except OSError:
        return "" if named_so else CLOSED
    if kind == "DICOM" and not holds_picture(file):
        return NO_PICTURE
    return "" if kind or (named_so and file.is_file()) else NO_IMAGE
