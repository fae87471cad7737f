"""Draw: what each of a site's images is for in a study, drawn once and kept by the images' hashes.

A manifest may change while a study runs: rows come and go, files are renamed, patients withdraw.
The draw does not. An image keeps its role wherever it lies now. An image that is gone, or is now
said to show something else, is left out. Nothing new is taken in. No image is tested that was
trained on, and no image of a patient who was.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from hica.cohort.roles import Note, Roles
from hica.errors import CheckpointError, DataError
from hica.images.cache import key_of
from hica.images.decode import decode_image, read_bytes, read_mask, stored_size
from hica.images.manifest import Record
from hica.progress import track
from hica.storage import write_atomically

Reader = Callable[[Record], str]
"""Gives the hash of a row's image file."""
Settings = Mapping[str, float | dict[str, float]]
"""The site's settings that a draw depends on, by their keys in `site.toml`."""

DRAW = "draw.json"
"""What a draw is kept in, in the site's folder of the study."""
FILE = "sha256:"
"""Before the hash of a file, where it links images."""
MANY = 500
"""Images, from which on it is shown how far the look at them has come."""
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
        withdrawn_marks: Of what names their images were linked by to any that was trained on,
            `_digest`s: whoever else has one of these names is not tested.
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
    withdrawn_marks: list[str] = field(default_factory=list)
    version: Literal[1] = 1

    @property
    def trained(self) -> set[str]:
        """All that the study may learn from."""
        return {*self.shots, *self.pool, *self.rest}

    def without(self, gone: Set[str]) -> "Draw":
        """The draw without the images `gone` of a patient who has withdrawn."""
        if not gone:
            return self

        marks = {mark for each in gone & self.linked().keys() for mark in self.images[each].marks}

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
            withdrawn_marks=sorted({*self.withdrawn_marks, *map(self._digest, marks)}),
        )

    def with_marks(self, said: Mapping[str, Set[str]]) -> "Draw":
        """The draw with the names of patients and groups that images are now said to have, too."""
        images = {
            each: replace(drawn, marks=sorted({*drawn.marks, *said.get(each, ())}))
            for each, drawn in self.images.items()
        }
        return replace(self, images=images)

    def linked(self) -> dict[str, set[str]]:
        """Images of patients who were trained on, each with the marks that say so.

        Whatever was ever said counts: who was once taken for the same patient is one for the whole
        study, also by way of a third image, and of one that was withdrawn; so is a file that is the
        same to the byte. An image that was itself trained on has no marks here.
        """
        marks = {
            each: {f"{FILE}{drawn.sha256}", *drawn.marks} for each, drawn in self.images.items()
        }
        withdrawn = set(self.withdrawn_marks)
        reached = {
            mark
            for mark in (set[str]().union(*marks.values()) if withdrawn else ())
            if self._digest(mark) in withdrawn
        }
        linked = {each: set[str]() for each in self.trained}
        while True:
            reached.update(*(marks[each] for each in linked))
            unknown = marks.keys() - linked.keys()
            more = {each: by for each in unknown if (by := marks[each] & reached)}
            if not more:
                return linked
            linked |= more

    def _digest(self, mark: str) -> str:
        """A mark, not to be read as a name; another one for every manifest."""
        return key_of(self.manifest, mark)


_DRAW = TypeAdapter(Draw)


def marks_of(row: Record) -> set[str]:
    """The names by which an image is linked to others; a group may be that of a patient.

    A file's own name is none: another image may have it tomorrow.
    """
    group = {row.group} if row.patient_id or row.dup_group else set[str]()
    return {*group, *([patient_mark(row.patient_id)] if row.patient_id else [])}


def patient_mark(patient: str) -> str:
    """The mark of a patient's images, as `hica.images.groups` names it."""
    return f"patient:{patient}"


def column_of(mark: str) -> str:
    """What of the manifest a mark is from; an image's hash is from none."""
    if mark.startswith(FILE):
        return "the same file"
    return "patient_id" if mark.startswith(patient_mark("")) else "dup_group"


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
    image = decode_image(data, row.image)
    if row.mask is not None:
        read_mask(row.mask, image.size, stored_size(image))
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
            return unreadable(row.name)

    return read_or_name


def unreadable(name: str) -> str:
    """What stands for the hash of an image file that cannot be read; no file has it."""
    return key_of("unreadable", name)


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
