"""named_files: the files that a manifest names, also as another system writes their paths."""

import os
import unicodedata
from pathlib import Path, PureWindowsPath

from hica.errors import DataError


class NamedFiles:
    """Files by the names in a manifest, relative to the manifest's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """The file of a name; with backslashes for slashes where it is there only so.

        Raises:
            DataError: There is none, or it cannot be looked at; says what to do, not in which row.
        """
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            file = self.folder / written
            try:
                if file.is_file():
                    return file
                is_folder = file.is_dir()
            except (OSError, ValueError) as error:  # a name that no system takes, a closed folder
                why = error.strerror if isinstance(error, OSError) else error
                raise DataError(
                    f"{name[:200]} cannot be looked at: {why}; name a file that this user may read"
                ) from None
            if is_folder:
                raise DataError(
                    f"{name} is a folder; name one image in it, each in a row of its own"
                )
        raise DataError(f"{name} does not exist; {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        """What may help where there is no such file."""
        if PureWindowsPath(name).drive and not Path(name).is_absolute():
            return f"that is a path of a Windows drive; write it relative to {self.folder}"
        written = Path(name.replace("\\", "/"))
        found = self._names_in(self.folder / written.parent).get(_alike(written.name))
        if found is not None:
            return f"there is {found!r}: write it so, in these letters, capital or small"
        return f"paths are relative to {self.folder}"

    def _names_in(self, folder: Path) -> dict[str, str]:
        """Names of a folder by what makes them alike."""
        if folder not in self._listed:
            try:
                self._listed[folder] = {_alike(each.name): each.name for each in folder.iterdir()}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]


def plain_name(name: str) -> str:
    """A name as it is compared with others: backslashes are slashes, `./a.png` is `a.png`."""
    return os.path.normpath(name.replace("\\", "/"))


def _alike(name: str) -> str:
    """A file name without the difference of capitals, and of how systems write an umlaut."""
    return unicodedata.normalize("NFC", name).casefold()
