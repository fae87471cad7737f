"""What a pull came to: counts alone, for people, for `--json` and for the site's record."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hica.printable import size_words


@dataclass
class Summary:
    """Counts of one pull, or of what it would be."""

    studies: int = 0
    """Chosen studies with a chosen series."""
    series: Counter[str] = field(default_factory=Counter)
    """Chosen series by modality."""
    instances: Counter[str] = field(default_factory=Counter)
    """Their instances by modality, as the PACS lists them; of a dry run, as it counts them."""
    held: int = 0
    """Instances that were in the folder before."""
    fetched: int = 0
    bytes: int = 0
    """Of those fetched."""
    missing: Counter[str] = field(default_factory=Counter)
    """Reason → instances that did not come."""
    asked_again: int = 0
    """Instances that were asked for more than once."""
    unasked: int = 0
    """Instances that came without having been asked for; refused."""
    unlike: int = 0
    """Studies that the PACS answered although they do not fit the question; left alone."""
    undescribed: int = 0
    """Studies without a description, where one was asked for; left alone."""
    repeated: int = 0
    """Entries for instances that were listed before."""
    unnamed: int = 0
    """Entries without a valid UID; left alone."""
    gone: int = 0
    """Studies that were found and then had no series any more."""
    uncounted: int = 0
    """Instances that the PACS counts in its series but does not list."""
    empty_lines: list[int] = field(default_factory=list)
    """Lines of the list of cases for which there is no study."""

    @property
    def whole(self) -> int:
        """Instances that are in the folder now."""
        return self.held + self.fetched

    def notes(self) -> list[str]:
        """What a person should know beside the counts."""
        lines = ", ".join(map(str, self.empty_lines[:10]))
        more = f" and {len(self.empty_lines) - 10} more" if len(self.empty_lines) > 10 else ""
        found = (
            (
                self.unlike,
                "studies were answered that do not fit the selection, and were left alone",
            ),
            (self.undescribed, "studies have no description and were left alone"),
            (self.repeated, "instances are listed more than once; each is one file"),
            (self.unnamed, "entries have no valid UID and were left alone; tell its administrator"),
            (
                self.gone,
                "studies were found and have no series any more; were they moved or deleted?",
            ),
            (
                self.uncounted,
                "instances more are counted by the PACS than it lists; tell its "
                "administrator, and look whether it limits the length of lists",
            ),
            (self.unasked, "instances were sent that nobody asked for, and were refused"),
            (
                len(self.empty_lines),
                "cases of the list have no study that fits (lines "
                f"{lines}{more}); Excel cuts zeros in front, for example",
            ),
        )
        return [f"{count} {words}" for count, words in found if count]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: no identifier of a patient, study or image is in it."""
        by_modality = {
            modality: {"series": count, "instances": self.instances[modality]}
            for modality, count in sorted(self.series.items())
        }
        return {
            "studies": self.studies,
            "series": self.series.total(),
            "instances": self.instances.total(),
            "by_modality": by_modality,
            "whole": self.whole,
            "held": self.held,
            "fetched": self.fetched,
            "bytes": self.bytes,
            "missing": self.missing.total(),
            "why_missing": dict(self.missing),
            "asked_again": self.asked_again,
            "notes": self.notes(),
        }

    def words(self) -> list[str]:
        """For people, a line each."""
        kinds = ", ".join(
            f"{modality or 'no modality'} {count} in {self.series[modality]} series"
            for modality, count in sorted(self.instances.items())
        )
        lines = [
            f"the PACS has {self.studies} studies, {self.series.total()} series, "
            f"{self.instances.total()} instances" + (f": {kinds}" if kinds else "")
        ]
        if self.whole or self.missing:
            lines.append(
                f"in the folder: {self.whole} ({self.held} from before, {self.fetched} fetched, "
                f"{size_words(self.bytes)})"
            )
        return lines
