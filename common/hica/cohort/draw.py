"""Draw: what each of a site's images is for in a study, drawn once and kept by the images' hashes.

A manifest may change while a study runs: rows come and go, files are renamed, patients withdraw.
The draw does not. An image keeps its role wherever it lies now. An image that is gone, or is now
said to show something else, is left out. Nothing new is taken in. No image is tested that was
trained on, and no image of a patient who was.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hica.cohort.roles import Note, Roles, evaluated
from hica.errors import CheckpointError, DataError
from hica.images.cache import key_of
from hica.images.decode import decode_image, read_bytes, read_mask
from hica.images.episodes import Episode
from hica.images.manifest import Record
from hica.progress import track
from hica.storage import write_atomically
from hica.study import Study

Reader = Callable[[Record], str]
"""Gives the hash of a row's image file."""
Settings = Mapping[str, float | dict[str, float]]
"""The site's settings that a draw depends on, by their keys in `site.toml`."""

DRAW = "draw.json"
"""What a draw is kept in, in the site's folder of the study."""
MANY = 500
"""Images, from which on it is shown how far the look at them has come."""
CHANGED = (
    "its manifest, images or settings have changed since the study was drawn there: what is gone "
    "is left out, and nothing new is taken in"
)
"""What the coordinator is told, however much has changed; of a private study nothing."""
SAME = "holds out images that it also learns from: they are not tested"


@dataclass(frozen=True)
class Drawn:
    """An image as the manifest had it when it was drawn.

    Attributes:
        name: The image as the manifest wrote it.
        sha256: Of its file.
        label: Its class.
        split: Which side the manifest put it on, where it did.
        marks: Names of its patient and group, all that it was ever said to have.
    """

    name: str
    sha256: str
    label: str | None
    split: str | None
    marks: list[str]


@dataclass(frozen=True)
class Draw:
    """The roles of a site's images in a study, by what `identify` calls each image.

    Attributes:
        manifest: SHA-256 of the manifest that it was drawn from.
        settings: The site's settings that it depends on.
        images: Every image that has a role.
        shots: In the order they are learnt from; so are the others.
        pool: See `Roles`; so for the others, and for what the coordinator is told.
        centre: Of the pool, for the centre.
        test: Held out.
        rest: Beyond the shots.
        shortfall: See `Episode`.
        notes: What was known when it was drawn.
        rest_shares: Of the classes in `rest`.
        shots_told: See `Roles`.
        classes_told: See `Roles`.
        pool_told: See `Roles`.
        withdrawn: Patients who have withdrawn since; their images stand nowhere here.
        version: Of this format.
    """

    manifest: str
    settings: dict[str, float | dict[str, float]]
    images: dict[str, Drawn]
    shots: list[str]
    pool: list[str]
    centre: list[str]
    test: list[str]
    rest: list[str]
    shortfall: dict[str, int]
    notes: list[Note]
    rest_shares: list[float] | None
    shots_told: int
    classes_told: list[int | None]
    pool_told: int
    withdrawn: int = 0
    version: Literal[1] = 1

    @property
    def trained(self) -> set[str]:
        """All that the study may learn from."""
        return {*self.shots, *self.pool, *self.rest}

    def without(self, gone: Set[str]) -> "Draw":
        """The draw without the images of a patient who has withdrawn."""
        if not gone:
            return self

        def left(ids: list[str]) -> list[str]:
            return [each for each in ids if each not in gone]

        return replace(
            self,
            images={each: drawn for each, drawn in self.images.items() if each not in gone},
            shots=left(self.shots),
            pool=left(self.pool),
            centre=left(self.centre),
            test=left(self.test),
            rest=left(self.rest),
            withdrawn=self.withdrawn + 1,
        )


_DRAW = TypeAdapter(Draw)


def marks_of(row: Record) -> set[str]:
    """The names by which an image is linked to others; a group may be that of a patient."""
    return {row.group, *([patient_mark(row.patient_id)] if row.patient_id else [])}


def patient_mark(patient: str) -> str:
    """The mark of a patient's images, as `hica.images.groups` names it."""
    return f"patient:{patient}"


def draw_of(roles: Roles, manifest: str, settings: Settings, read: Reader) -> Draw:
    """What is kept of roles that were just assigned; `read` gives the hash of a row's image.

    Raises:
        DataError: An image cannot be read.
    """
    rows = {row.name: row for row in (*roles.train_in_use, *roles.test)}
    images: dict[str, Drawn] = {}
    ids: dict[str, str] = {}
    copies: Counter[str] = Counter()
    for name, image in hashed([rows[name] for name in sorted(rows)], read).items():
        row, copy = rows[name], copies[image]
        copies[image] += 1
        # Files that are the same to the byte are images of their own, as the manifest has them.
        ids[name] = key_of(image, copy) if copy else image
        images[ids[name]] = Drawn(name, image, row.label, row.split, sorted(marks_of(row)))

    def of(records: Sequence[Record]) -> list[str]:
        return [ids[record.name] for record in records]

    learnt = {images[each].sha256 for each in of(roles.train_in_use)}
    test = [each for each in of(roles.test) if images[each].sha256 not in learnt]
    notes = list(roles.notes)
    if same := len(roles.test) - len(test):
        here = f"holds out {same} images that are learnt from in another file: they are not tested"
        notes.append(Note(here, SAME))
    return Draw(
        manifest=manifest,
        settings=dict(settings),
        images=images,
        shots=of(roles.shots),
        pool=of(roles.pool),
        centre=of(roles.centre),
        test=test,
        rest=of(roles.rest),
        shortfall=roles.episode.shortfall,
        notes=notes,
        rest_shares=None if roles.rest_shares is None else roles.rest_shares.tolist(),
        shots_told=roles.shots_told,
        classes_told=roles.classes_told,
        pool_told=roles.pool_told,
    )


def hashed(rows: Sequence[Record], read: Reader) -> dict[str, str]:
    """Hash of the image of each row, by the row's name.

    Raises:
        DataError: As `read` does.
    """
    shown = track(rows, "looking at the images", len(rows)) if len(rows) > MANY else rows
    return {row.name: read(row) for row in shown}


def decoded_hash(row: Record) -> str:
    """As `hash_of`, of an image that can be decoded, as its mask can: mended, it is another file.

    Raises:
        DataError: It cannot be decoded, or its mask is of another size.
    """
    data = read_bytes(row.image)
    size = decode_image(data, row.image).size
    if row.mask is not None:
        read_mask(row.mask, size)
    return sha256(data).hexdigest()


def hash_of(row: Record) -> str:
    """SHA-256 of a row's image file.

    Raises:
        DataError: It cannot be read.
    """
    return sha256(read_bytes(row.image)).hexdigest()


def or_name(read: Reader) -> Reader:
    """As `read`; of a file that cannot be read, a hash of its name.

    For private studies, where a refusal would tell of the patient whose image cannot be read.
    """

    def read_or_name(row: Record) -> str:
        try:
            return read(row)
        except DataError:
            return key_of("unreadable", row.name)

    return read_or_name


def settled(
    draw: Draw, records: Sequence[Record], study: Study, read: Reader, changed: Sequence[str] = ()
) -> tuple[Roles, Draw]:
    """The roles of today's rows under a draw; and the draw, with what is now known of patients.

    `changed` says in words what else is not as it was drawn from; `read` is as in `draw_of`.

    Raises:
        DataError: An image that has a role cannot be read.
    """
    found = _found(draw, records, read)
    draw = _with_marks(draw, found)
    relabelled = {each for each, row in found.items() if row.label != draw.images[each].label}
    linked = _linked(draw) & set(draw.test)
    left_out = relabelled | linked

    def rows(ids: Iterable[str], less: Set[str] = frozenset()) -> list[Record]:
        return [found[each] for each in ids if each in found and each not in less]

    notes = list(draw.notes)
    test, test_told = evaluated(rows(draw.test, left_out), study, notes)
    told = "" if study.privacy.is_private else CHANGED
    changes = [*changed, *_changes(draw, found, len(relabelled), len(linked))]
    notes += [Note(f"since this study was drawn here: {each}", told) for each in changes]
    train = [each for each in dict.fromkeys((*draw.pool, *draw.shots, *draw.rest)) if each in found]
    shots = [each for each in draw.shots if each in found and each not in relabelled]
    roles = Roles(
        train=rows(train),
        pool=rows(draw.pool),
        centre=rows(draw.centre),
        test=test,
        rest=rows(draw.rest, relabelled),
        episode=Episode([train.index(each) for each in shots], draw.shortfall),
        notes=notes,
        rest_shares=None if draw.rest_shares is None else np.array(draw.rest_shares),
        shots_told=draw.shots_told,
        classes_told=draw.classes_told,
        pool_told=draw.pool_told,
        test_told=test_told,
        ids={row.name: each for each, row in found.items()},
        withdrawn=draw.withdrawn,
    )
    return roles, draw


def _found(draw: Draw, records: Sequence[Record], read: Reader) -> dict[str, Record]:
    """Today's row of every image that is still there, in the draw's order."""
    here = {row.name: row for row in records}
    named = {each: here[drawn.name] for each, drawn in draw.images.items() if drawn.name in here}
    hashes = hashed(list(named.values()), read)
    found = {
        each: row for each, row in named.items() if hashes[row.name] == draw.images[each].sha256
    }
    missing = [each for each in draw.images if each not in found]
    if not missing:
        return found
    # Under another name now? Nothing is lost where one of the other rows cannot be read.
    taken = {row.name for row in found.values()}
    others = [row for row in records if row.name not in taken]
    spare: defaultdict[str, list[Record]] = defaultdict(list)
    for row, image in zip(others, hashed(others, or_name(hash_of)).values(), strict=True):
        spare[image].append(row)
    for each in missing:
        if rows := spare[draw.images[each].sha256]:
            found[each] = rows.pop(0)
    return {each: found[each] for each in draw.images if each in found}


def _with_marks(draw: Draw, found: Mapping[str, Record]) -> Draw:
    """The draw with the patients and groups that its images are now said to have, too."""
    images = {
        each: replace(drawn, marks=sorted({*drawn.marks, *marks_of(found[each])}))
        if each in found
        else drawn
        for each, drawn in draw.images.items()
    }
    return replace(draw, images=images)


def _linked(draw: Draw) -> set[str]:
    """Images of patients who are trained on, whatever was ever said of them.

    Whoever was once taken for the same patient counts as one for the whole study, also by way of
    a third image; so does a file that is the same to the byte.
    """
    marks = {each: {f"sha256:{drawn.sha256}", *drawn.marks} for each, drawn in draw.images.items()}
    linked = draw.trained
    while True:
        reached = set().union(*(marks[each] for each in linked)) if linked else set()
        more = {each for each, own in marks.items() if own & reached}
        if more == linked:
            return linked
        linked = more


def _changes(
    draw: Draw, found: Mapping[str, Record], relabelled: int, linked: int
) -> Iterator[str]:
    """What is not as it was drawn, in words for the site."""
    gone = [drawn.name for each, drawn in draw.images.items() if each not in found]
    if gone:
        names = ", ".join(sorted(gone)[:3])
        yield f"{len(gone)} images are gone, or their files hold others: left out ({names} …)"
    if moved := sum(row.name != draw.images[each].name for each, row in found.items()):
        yield f"{moved} images have another name: known by their content"
    if relabelled:
        yield f"{relabelled} images have another label: neither learnt from as shots nor tested"
    if linked:
        yield f"{linked} held-out images are of patients who are learnt from: not tested"
    sides = ((row.split, draw.images[each].split) for each, row in found.items())
    if any(now and now != then for now, then in sides):
        yield "the column split has changed: this study keeps the split that it was drawn with"


def load_draw(path: Path) -> Draw | None:
    """Read a draw; None where there is none.

    Raises:
        CheckpointError: The file is not what was written there.
    """
    try:
        return _DRAW.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            f"{path}: is not what was written there ({str(error).splitlines()[0]}): restore it "
            "from a backup. Without it nobody knows which images this study was trained on; then "
            "start the study anew, under another name or seed"
        ) from None


def save_draw(path: Path, draw: Draw) -> None:
    """Keep a draw.

    Raises:
        StorageError: The file cannot be written.
    """
    write_atomically(path, _DRAW.dump_json(draw, indent=1), mode=0o600)
