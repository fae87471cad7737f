"""The loop of a pull: find studies, list what is in them, fetch what is not in the folder yet."""

import hashlib
from collections.abc import Iterator, Mapping

from hica.progress import track
from hica_client.pacs.archive import Archive
from hica_client.pacs.connection import AGAIN
from hica_client.pacs.errors import LostInstanceError, PacsError
from hica_client.pacs.selection import Selection, uid_of
from hica_client.pacs.store import Store
from hica_client.pacs.summary import Summary

TRIES = 3
"""How often an instance is asked for in one pull."""
BATCH = 50
"""Instances of a series begun before that are asked for at once."""
TOO_MANY = 20
"""Instances asked for one by one, or series, after which there is no asking on: all were lost."""


def pull(archive: Archive, selection: Selection, store: Store, found: Summary) -> None:
    """Fetch what a selection finds into a store, counting in `found`, which is right at any time.

    An instance that is whole in the store is not asked for; one that does not come is asked for up
    to `TRIES` times, then counted by its reason.

    Raises:
        PacsError: The PACS does not go on, or nothing of what is asked for comes.
        StorageError: The disk is full.
    """
    studies = find_studies(archive, selection, found)
    seen: set[bytes] = set()
    fetching = _Fetching(archive, store, found)
    for study in track(studies, "fetching studies"):
        for series, modality, number in _series(archive, selection, study, found):
            repeated = found.repeated
            listed = _instances(archive, study, series, found, seen)
            counted = len(listed) + found.repeated - repeated
            found.uncounted += max(0, (number or 0) - counted)
            found.instances[modality] += len(listed)
            wanted = {sop: kind for sop, kind in listed.items() if not store.holds(sop, study)}
            found.held += len(listed) - len(wanted)
            store.check_space()
            try:
                fetching.fetch(study, series, wanted, whole=len(wanted) == len(listed))
            finally:  # also where it was interrupted
                found.fetched, found.bytes = store.fetched, store.bytes
                found.unasked = archive.unasked


def count(archive: Archive, selection: Selection, found: Summary) -> None:
    """Count what `pull` would fetch into an empty store; nothing is moved."""
    seen: set[bytes] = set()
    for study in track(find_studies(archive, selection, found), "counting"):
        for series, modality, number in _series(archive, selection, study, found):
            if number is None:
                number = len(_instances(archive, study, series, found, seen))
            found.instances[modality] += number


def find_studies(archive: Archive, selection: Selection, found: Summary) -> list[str]:
    """StudyInstanceUIDs, each once, in the order of the PACS."""
    studies: dict[str, None] = {}
    empty: dict[int, None] = {}
    full: set[int] = set()
    unlike: set[str] = set()
    undescribed: set[str] = set()
    for query in selection.queries():
        if query.case is not None:
            empty[query.case.line] = None
        for attributes in archive.studies(query):
            uid = uid_of(attributes, "StudyInstanceUID")
            if uid is None:
                found.unnamed += 1
            elif not query.matches(attributes):
                unlike.add(uid)
            elif not selection.describes(attributes):
                if not attributes.get("StudyDescription", "").strip():
                    undescribed.add(uid)
            else:
                studies[uid] = None
                if query.case is not None:
                    full.add(query.case.line)
            if len(studies) == selection.limit:
                break
        if len(studies) == selection.limit:
            empty.clear()  # not all were looked for
            break
    found.undescribed = len(undescribed)
    found.unlike = len(unlike - studies.keys())
    found.empty_lines = [line for line in empty if line not in full]
    return list(studies)


def _series(
    archive: Archive, selection: Selection, study: str, found: Summary
) -> Iterator[tuple[str, str, int | None]]:
    """UID, modality and number of instances of the series that are taken, counted."""
    taken: dict[str, tuple[str, int | None]] = {}
    listed = 0
    for attributes in archive.series(study):
        listed += 1
        uid = uid_of(attributes, "SeriesInstanceUID")
        if uid is None:
            found.unnamed += 1
        elif selection.takes(attributes):
            number = attributes.get("NumberOfSeriesRelatedInstances", "").strip()
            modality = attributes.get("Modality", "").strip()
            taken[uid] = modality, int(number) if number.isdecimal() else None
    found.gone += not listed
    found.studies += bool(taken)
    for uid, (modality, number_of) in taken.items():
        found.series[modality] += 1
        yield uid, modality, number_of


def _instances(
    archive: Archive, study: str, series: str, found: Summary, seen: set[bytes]
) -> dict[str, str]:
    """SOP instance → class of a series, without those that were listed before."""
    listed: dict[str, str] = {}
    for attributes in archive.instances(study, series):
        uid = uid_of(attributes, "SOPInstanceUID")
        if uid is None:
            found.unnamed += 1
            continue
        mark = hashlib.sha256(uid.encode()).digest()[:12]  # of a million: under 100 MB
        if mark in seen:
            found.repeated += 1
            continue
        seen.add(mark)
        listed[uid] = uid_of(attributes, "SOPClassUID") or ""
    return listed


class _Fetching:
    """Asks again where that may help, and ends where nothing does."""

    def __init__(self, archive: Archive, store: Store, found: Summary) -> None:
        self._archive, self._store, self._found = archive, store, found
        self._series_in_a_row = 0

    def fetch(self, study: str, series: str, wanted: Mapping[str, str], *, whole: bool) -> None:
        """Fetch instances of a series; those that do not come are counted.

        Raises:
            PacsError: Nothing of the last series came, either.
        """
        lost: dict[str, LostInstanceError] = {}
        left = dict(wanted)
        for attempt in range(TRIES):
            if not left:
                break
            self._found.asked_again += len(left) if attempt else 0
            self._ask(study, series, left, lost, attempt, whole=whole)
            left = {sop: kind for sop, kind in left.items() if sop in lost and lost[sop].again}
        self._found.missing.update(str(error) for error in lost.values())
        self._series_in_a_row = (
            self._series_in_a_row + 1 if lost and len(lost) == len(wanted) else 0
        )
        if self._series_in_a_row >= TOO_MANY:
            reason = str(next(iter(lost.values())))
            raise PacsError(
                f"nothing of the last {TOO_MANY} series came. The images of the last {reason}. "
                f"This is not tried on; {AGAIN}"
            )

    def _ask(
        self,
        study: str,
        series: str,
        left: Mapping[str, str],
        lost: dict[str, LostInstanceError],
        attempt: int,
        *,
        whole: bool,
    ) -> None:
        """Ask once for what is left; the first time together, later one by one."""
        size = (len(left) if whole else BATCH) if attempt == 0 else 1
        in_a_row = 0
        for few in _batches(left, size):
            missing = self._archive.retrieve(
                study, series, few, self._store, whole=whole and attempt == 0
            )
            for sop in few.keys() - missing.keys():
                lost.pop(sop, None)
            lost |= missing
            in_a_row = in_a_row + 1 if len(missing) == len(few) else 0
            if attempt and in_a_row >= TOO_MANY:
                return


def _batches(wanted: Mapping[str, str], size: int) -> Iterator[dict[str, str]]:
    names = list(wanted)
    for start in range(0, len(names), size):
        yield {sop: wanted[sop] for sop in names[start : start + size]}


def missing_error(found: Summary) -> PacsError:
    """What to end with where instances are missing."""
    reasons = ". ".join(f"{number} {reason}" for reason, number in found.missing.most_common())
    return PacsError(
        f"{found.missing.total()} of {found.instances.total()} instances are missing: {reasons}. "
        "The same command asks for them again"
    )
