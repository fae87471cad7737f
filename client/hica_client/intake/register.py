"""Register: what imports have read so far, under pseudonyms; SQLite in the site's state.

It makes an import resumable, and its size does not show in memory. A file that is here with its
size and time is not read again. There is no name, number or path in it, only handles.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hica.errors import DataError, StorageError

SOURCE = (
    # of the file itself
    *("key", "stamp", "reason", "text", "patient", "bare", "study", "series", "instance"),
    *("accession", "path", "name", "top", "below", "split", "given", "dicom", "told"),
    *("modality", "intent", "slice", "position", "number", "burned", "areas"),
)
"""Columns of a file that was read. `reason`: why it is no picture; `text`: of a report; `bare`:
its PatientID without issuer; `top`, `below`: the folders that may be a class and a patient;
`given`: the class that the file itself says; `told`: whether a folder is named after a patient."""
SCHEMA = f"""
    CREATE TABLE sources ({", ".join(SOURCE)}, run, owner, left_out, picture, PRIMARY KEY (key));
    CREATE INDEX of_run ON sources (run, series);
    CREATE INDEX of_picture ON sources (picture);
    CREATE INDEX of_study ON sources (study) WHERE text != '';
    CREATE TABLE words (patient, word, PRIMARY KEY (patient, word)) WITHOUT ROWID;
    CREATE TABLE pictures (picture PRIMARY KEY, patient, sha256, bytes, hash, lettered, way);
    CREATE TABLE written (digest PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE facts (name PRIMARY KEY, value);
"""
VERSION = 1
READING = 2
"""Of a file, which is read anew where this is another: reports are scrubbed as they are read."""
PICTURE = "reason = '' AND text = ''"
"""Of sources: a picture that could be taken; what else has no reason is a report."""
CHOSEN = f"{PICTURE} AND left_out = ''"
"""Of sources: a picture that is taken in this import."""
WAIT = 10.0
"""Seconds that another process may hold the register."""
BETWEEN_COMMITS = 200
"""Files whose reading a crash may lose."""


class Register:
    """An open register; `run` is the number of this import in it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._uncommitted = 0
        self.run = 1 + (self.value("SELECT max(run) FROM sources") or 0)
        self._reader = version("hica")

    def rows(self, query: str, *values: Any) -> Iterator[Any]:
        """The rows of a query, one after the other."""
        return iter(self._connection.execute(query, values))

    def value(self, query: str, *values: Any) -> Any:
        """The first value of the first row; None where there is none."""
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None

    def change(self, query: str, *values: Any) -> int:
        """Carry a change out; the number of rows. It is on disk after the next `commit`."""
        changed = self._connection.execute(query, values).rowcount
        self._uncommitted += 1
        if self._uncommitted >= BETWEEN_COMMITS:
            self.commit()
        return changed

    def many(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Carry a change out for each of some rows."""
        self._connection.executemany(query, rows)

    def commit(self) -> None:
        """Have all changes on disk."""
        self._connection.commit()
        self._uncommitted = 0

    def stamp(self, file: str) -> str:
        """What is another as soon as a file is, or the program that read it."""
        return f"{file}:{self._reader}:{READING}"

    def is_known(self, key: str, stamp: str) -> bool:
        """Whether a file was read before as it is now; it is then of this import, too."""
        update = "UPDATE sources SET run = ? WHERE key = ? AND stamp = ?"
        return self.change(update, self.run, key, self.stamp(stamp)) > 0

    def add(self, stamp: str, **source: Any) -> None:
        """Keep what was read of a file; what is not given is empty."""
        values = {name: source.get(name, "") for name in SOURCE}
        values["stamp"] = self.stamp(stamp)
        columns = ", ".join((*SOURCE, "run", "owner", "left_out", "picture"))
        marks = ", ".join("?" * (len(SOURCE) + 4))
        self.change(
            f"INSERT OR REPLACE INTO sources ({columns}) VALUES ({marks})",
            *values.values(),
            *(self.run, "", "", ""),
        )

    def forget(self, patient: str, images: Iterable[str]) -> None:
        """Delete all that is known of a patient, and of whose images have these SHA-256."""
        owners = {patient} | {
            owner
            for image in images
            for (owner,) in self.rows("SELECT patient FROM pictures WHERE sha256 = ?", image)
        } - {""}
        theirs = "SELECT key FROM sources WHERE patient = ? OR owner = ?"
        study = f"SELECT study FROM sources WHERE key IN ({theirs}) AND study != ''"
        for owner in owners:
            self.change(f"DELETE FROM sources WHERE study IN ({study})", owner, owner)
            self.change(f"DELETE FROM sources WHERE key IN ({theirs})", owner, owner)
            self.change("DELETE FROM pictures WHERE patient = ?", owner)
            self.change("DELETE FROM words WHERE patient = ?", owner)
        for image in images:
            picture = "SELECT picture FROM pictures WHERE sha256 = ?"
            self.change(f"DELETE FROM sources WHERE picture IN ({picture})", image)
            self.change("DELETE FROM pictures WHERE sha256 = ?", image)
        self.commit()


@contextmanager
def opened(path: Path) -> Iterator[Register]:
    """The register at `path`, made where there is none; only its owner may read it.

    Raises:
        StorageError: It cannot be written, now or by what is done inside: disk full, permission.
        DataError: It is damaged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        connection = sqlite3.connect(path, WAIT)
    except (OSError, sqlite3.Error) as error:
        raise _not_written(path, error) from None
    try:
        connection.execute("PRAGMA secure_delete = ON")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if not found:
            connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif found != VERSION:
            raise DataError(
                f"{path}: is of another version of HiCA; move it away and import again: rows that "
                "are in the manifest stay as they are"
            )
        register = Register(connection)
        yield register
        register.commit()
    except sqlite3.OperationalError as error:
        raise _not_written(path, error) from None
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path}: is damaged ({error}); move it away and import again: files are read anew, "
            "and rows that are in the manifest stay as they are"
        ) from None
    finally:
        connection.close()


def _not_written(path: Path, error: Exception) -> StorageError:
    why = error.strerror if isinstance(error, OSError) else error
    if "locked" in str(why):
        return StorageError(
            f"{path}: is held by an import that is running; wait until it has ended, then give the "
            "same command again"
        )
    return StorageError(
        f"{path}: cannot be written: {why}; free space or give this user the right to write there, "
        "then import again: it goes on from where it was"
    )
