"""The rows that an import gives its pictures: label, patient, split, report, near-duplicates."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter

from hica_client.intake import reasons
from hica_client.intake.labels import LabelFile, Told, told_of
from hica_client.intake.merge import Row
from hica_client.intake.pseudonyms import Pseudonyms
from hica_client.intake.register import Register
from hica_client.intake.scrub import scrubbed
from hica_client.intake.taking import UNKNOWN

FOLDER = "images"
"""Beside the manifest: what imports have written."""

WORDS = "SELECT word FROM words WHERE patient = ?"

OURS = re.compile(rf"{FOLDER}/(p[0-9a-f]{{16}}|{UNKNOWN})/[0-9a-f]{{24}}\.png")
"""What the column `image` of an import looks like."""


def image_of(picture: str) -> str:
    """What stands in the column `image` for a picture of the register."""
    return f"{FOLDER}/{picture}.png"


@dataclass
class RowMaker:
    """Makes the rows of one import."""

    register: Register
    pseudonyms: Pseudonyms
    classes: dict[str, str]
    """By the handle of their folder."""
    class_names: list[str]
    """By the number that a MedMNIST file gives."""
    labels: LabelFile
    marks: dict[str, str]
    """`dup_group` by picture."""
    contradictions: int = 0
    """Pictures that lie in the folders of two classes."""
    reported: int = 0
    labelled: dict[str, int] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """One row for each picture that is taken, in the order of their names."""
        val = "train" if self._has_test() else "test"
        sources = self.register.rows(
            "SELECT picture, key, owner, study, split, given, top FROM sources WHERE run = ? AND "
            "picture != '' AND left_out IN ('', ?) ORDER BY picture, key",
            *(self.register.run, reasons.AGAIN),
        )
        for picture, group in groupby(sources, key=itemgetter(0)):
            listed = list(group)
            told = self._told([source[1] for source in listed])
            own = {self._class(given, top) for *_, given, top in listed} - {""}
            self.contradictions += len(own) > 1
            label = told.label or (own.pop() if len(own) == 1 else "")
            splits = {split for *_, split, _, _ in listed} - {""}
            split = told.split or (splits.pop() if len(splits) == 1 else "")
            report = self._report({source[3] for source in listed} - {""}, listed[0][2], told)
            self.reported += bool(report)
            if label:
                self.labelled[label] = self.labelled.get(label, 0) + 1
            yield {
                "image": image_of(picture),
                "label": label,
                "patient_id": "" if picture.startswith(f"{UNKNOWN}/") else listed[0][2],
                "split": val if split == "val" else split,
                "mask": "",
                "findings": told.findings,
                "report": report,
                "dup_group": self.marks.get(picture, ""),
            }

    def _has_test(self) -> bool:
        count = "SELECT count(*) FROM sources WHERE run = ? AND split = 'test'"
        return bool(self.register.value(count, self.register.run))

    def _class(self, given: str, top: str) -> str:
        """The class of a source by its file or by its folder."""
        if given.isdecimal() and int(given) < len(self.class_names):
            return self.class_names[int(given)]
        return given or self.classes.get(top, "")

    def _told(self, keys: list[str]) -> Told:
        """What the table of labels says of a picture, which several files may show."""
        found = [
            told for key in keys if (told := told_of(self.register, key, self.labels)) != Told()
        ]
        if len({told.label for told in found} - {""}) > 1:
            self.contradictions += 1
            return Told()
        return found[0] if found else Told()

    def _report(self, studies: set[str], owner: str, told: Told) -> str:
        """The text of the reports of a picture's studies, and what the table says."""
        texts = [
            text
            for study in sorted(studies)
            for (text,) in self.register.rows(
                "SELECT DISTINCT text FROM sources WHERE study = ? AND text != '' "
                "ORDER BY number, text",
                study,
            )
        ]
        if told.report:
            theirs = self._words(owner)
            known = partial(self.pseudonyms.handle, "word")
            texts.append(scrubbed(told.report, lambda word: bool(theirs) and known(word) in theirs))
        return " ".join(texts)

    def _words(self, owner: str) -> set[str]:
        """The handles of the words of a patient's name and numbers."""
        return {word for (word,) in self.register.rows(WORDS, owner)}
