"""Reviewed: what a site's reviewers have said of single images, as far as roles depend on it."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from hica.images.manifest import Record


@dataclass(frozen=True)
class Reviewed:
    """What was said of images, by the SHA-256 of each file.

    Attributes:
        labels: What an image shows, in place of what the manifest says; None: none of the classes,
            or reviewers do not agree.
        rejected: Images that nothing is to be learnt from.
    """

    labels: Mapping[str, str | None] = field(default_factory=dict)
    rejected: Set[str] = frozenset()

    def corrected(self, row: Record, image: str, classes: Sequence[str]) -> Record:
        """A row with the label that reviewers gave its image; another study's class is none."""
        if image not in self.labels:
            return row
        label = self.labels[image]
        return replace(row, label=label if label in classes else None)

    def drawn_from(
        self, records: Iterable[Record], hashes: Mapping[str, str], classes: Sequence[str]
    ) -> list[Record]:
        """Rows to draw roles from; `hashes` are those of the images, by the rows' names.

        Where the manifest says who is held out, a row that reviewers were the first to label is
        not.
        """
        rows = [self.corrected(row, hashes[row.name], classes) for row in records]
        split = any(row.split for row in rows)
        return [
            replace(row, split="train")
            if split and row.label and not row.split and hashes[row.name] in self.labels
            else row
            for row in rows
        ]
