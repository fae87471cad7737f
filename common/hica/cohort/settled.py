"""The roles of today's rows under a study's draw, and what is not as it was drawn."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from hica.cohort.draw import DRAW, Draw, Reader, column_of, hash_of, hashed, marks_of, or_name
from hica.cohort.reviewed import Reviewed
from hica.cohort.roles import Note, Roles, evaluated
from hica.images.episodes import Episode
from hica.images.manifest import Record
from hica.study import Study

CHANGED = (
    "its manifest, images or settings have changed since the study was drawn there: what is gone "
    "is left out, and nothing new is taken in"
)
"""What the coordinator is told, however much has changed; of a private study nothing."""
NOT_REVIEWED = Reviewed()


def settled(
    draw: Draw,
    records: Sequence[Record],
    study: Study,
    read: Reader,
    changed: Sequence[str] = (),
    reviewed: Reviewed = NOT_REVIEWED,
) -> tuple[Roles, Draw]:
    """The roles of today's rows under a draw; and the draw, with what is now known of patients.

    `changed` says in words what else is not as it was drawn from; `read` is as in `draw_of`.

    A label that reviewers have corrected is learnt from where the image is a shot. A held-out image
    of which they say something else is not tested, and never learnt from. Nobody is told of it.

    Raises:
        DataError: An image that has a role cannot be read.
    """
    found = {
        each: reviewed.corrected(replace(row, sha256=image), image, study.class_names)
        for each, row in _found(draw, records, read).items()
        for image in [draw.images[each].sha256]
    }
    draw = draw.with_marks({each: marks_of(row) for each, row in found.items()})
    relabelled = {each for each, row in found.items() if row.label != draw.images[each].label}
    said = {each for each in relabelled if draw.images[each].sha256 in reviewed.labels}
    corrected = {each for each in said if found[each].label}
    rejected = {each for each in found if draw.images[each].sha256 in reviewed.rejected}
    every = draw.linked()
    linked = {each: every[each] for each in draw.test if each in every}
    left_out = relabelled | linked.keys()

    def rows(ids: Iterable[str], less: Set[str] = frozenset()) -> list[Record]:
        return [found[each] for each in ids if each in found and each not in less]

    notes = list(draw.notes)
    test, test_told = evaluated(rows(draw.test, left_out), study, notes)
    told = "" if study.privacy.is_private else CHANGED
    changes = [*changed, *_changes(draw, found, len(relabelled - said), linked)]
    notes += [Note(f"since this study was drawn here: {each}", told) for each in changes]
    if said or rejected & {*draw.shots}:
        notes.append(Note(_reviewed(draw, said, corrected, rejected), ""))
    train = [each for each in dict.fromkeys((*draw.pool, *draw.shots, *draw.rest)) if each in found]
    left_alone = (relabelled - corrected) | rejected
    shots = [each for each in draw.shots if each in found and each not in left_alone]
    roles = Roles(
        train=rows(train),
        pool=rows(draw.pool),
        centre=rows(draw.centre),
        test=test,
        rest=rows(draw.rest, relabelled - said),
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


def _reviewed(draw: Draw, said: Set[str], corrected: Set[str], rejected: Set[str]) -> str:
    """What reviewers have changed, in words for the site."""
    shots = {*draw.shots}
    return (
        f"reviewers: {len(shots & corrected - rejected)} shots have the label that they gave, "
        f"{len(shots & ((said - corrected) | rejected))} are left out, and "
        f"{len(said & {*draw.test})} held-out images with another label are not tested"
    )


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


def _changes(
    draw: Draw, found: Mapping[str, Record], relabelled: int, linked: Mapping[str, Set[str]]
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
        columns = " and ".join(sorted({column_of(mark) for by in linked.values() for mark in by}))
        yield (
            f"{len(linked)} held-out images are of patients who are learnt from, by {columns}: not "
            f"tested. If only names were changed there, restore the manifest and {DRAW} from a "
            "backup"
        )
    sides = ((row.split, draw.images[each].split) for each, row in found.items())
    if any(now and now != then for now, then in sides):
        yield "the column split has changed: this study keeps the split that it was drawn with"
