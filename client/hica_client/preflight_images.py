"""preflight_images: every image and mask decoded and looked at, before a model learns from it.

**What is a problem and what a note.** A problem keeps `check` from saying "ready": a file that
cannot be decoded, and a labelled image in which nobody could see anything (all black, all white,
one grey). A model would learn that this is what the class looks like, and wrong pixels without a
word are worse than a crash. Everything else is a note: real images of such kinds exist (a few
bright ones, a thin scout, a shape in two greys), and a person decides. So is a blank image without
label: stage 1 learns little from it, but nothing wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hica.errors import DataError, HicaError
from hica.images.causes import by_cause, cause_of
from hica.images.decode import Picture, read_mask, read_picture
from hica.images.looks import FLAGS, Flag, Look, look_at
from hica.images.manifest import Record
from hica.images.sniff import kind_of
from hica.printable import listed
from hica.progress import track
from hica_client.preflight_report import Preflight


@dataclass(frozen=True)
class Seen:
    """An image that was decoded, without its pixels."""

    record: Record
    look: Look
    kind: str
    """Of its file, such as `PNG`, and by which way it came to 8-bit RGB."""
    notes: tuple[str, ...]
    """See `Picture`."""
    masked: float | None
    """Share of its pixels that the mask covers; None without a mask."""


def check_images(found: Preflight, records: Sequence[Record], manifest: Path) -> list[Seen]:
    """Decode every image and its mask, and say what is wrong with them, each cause once."""
    seen: list[Seen] = []
    failed: list[tuple[str, str, HicaError]] = []
    decoded: Counter[str] = Counter()
    for record in track(records, "decoding images and masks", len(records)):
        try:
            picture = read_picture(record.image)
            decoded[picture.way] += 1
            seen.append(_seen(record, picture))
        except DataError as error:
            cause = cause_of(str(error), str(record.image), str(record.mask))
            failed.append((record.name, cause, error))
    found.problems += by_cause(failed, "images")
    oblong = sum(each.look.width != each.look.height for each in seen)
    found.facts |= {"decoded": dict(decoded), "not_square": oblong}
    _tell_flags(found, seen, manifest)
    _tell_notes(found, seen)
    return seen


def _seen(record: Record, picture: Picture) -> Seen:
    """What is kept of a decoded image.

    Raises:
        DataError: Its mask cannot be used.
    """
    image = picture.image
    masked = None if record.mask is None else float(read_mask(record.mask, image.size).mean())
    try:
        kind = kind_of(record.image) or "other"
    except OSError as error:  # it was there a moment ago
        raise DataError(
            f"{record.image}: cannot be read: {error.strerror}; restore the file or take its row "
            "out of the manifest"
        ) from None
    look, way = look_at(image), f"{kind}, {picture.way}"
    return Seen(record, look, way, tuple(picture.notes), masked)


def _tell_flags(found: Preflight, seen: Iterable[Seen], manifest: Path) -> None:
    """Say which images look wrong, why probably, and what to do."""
    flagged: defaultdict[Flag, list[Record]] = defaultdict(list)
    for each in seen:
        for flag in each.look.flags:
            flagged[flag].append(each.record)
    found.facts["flags"] = {
        flag.name: [row.name for row in flagged[flag]] for flag in FLAGS if flag in flagged
    }
    for flag in filter(flagged.__contains__, FLAGS):
        labelled = [row.name for row in flagged[flag] if row.label]
        others = [row.name for row in flagged[flag] if not row.label]
        if flag.blank and labelled:
            problem = DataError(f"{manifest}: {_words(flag, labelled, 'labelled image')}")
            problem.places = labelled
            found.problems.append(problem)
        elif not flag.blank:
            others = labelled + others
        if others:
            found.notes.append(_words(flag, others, "image"))


def _words(flag: Flag, names: list[str], what: str) -> str:
    count = f"1 {what}" if len(names) == 1 else f"{len(names):,} {what}s"
    return f"{flag.name}: {count} ({listed(names)}): {flag.remedy}"


def _tell_notes(found: Preflight, seen: Iterable[Seen]) -> None:
    """Say once what was left out, passed over or chosen in files of one kind."""
    told: defaultdict[str, list[str]] = defaultdict(list)
    words: dict[str, str] = {}
    for each in seen:
        for note in each.notes:
            cause = cause_of(note)
            told[words.setdefault(cause, note)].append(each.record.name)
    found.facts["read_notes"] = dict(told)
    found.notes += [f"{note} ({len(names):,}: {listed(names)})" for note, names in told.items()]
