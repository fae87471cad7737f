"""Paths as people type them: a folder may stand for the one file in it that is meant."""

from pathlib import Path
from typing import Any

import click

from hica.errors import ConfigurationError


class PathArgument(click.ParamType):  # type: ignore[type-arg]  # of click 8.5 only
    """A path that the system can look at; whether something is there is for the command to say."""

    name = "path"

    def convert(
        self, value: Any, param: click.Parameter | None, _context: click.Context | None
    ) -> Path:
        """The path that is meant by what was typed.

        Raises:
            ConfigurationError: Nothing was typed, or the system takes no such path.
        """
        if not str(value):
            named = param.human_readable_name if param else "path"
            raise ConfigurationError(
                f"{named}: empty; name a file or folder (is a shell variable not set?)"
            )
        try:
            return self.meant(Path(value))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"{str(value)[:200]}: cannot be looked at: {why}; give a path that this "
                "user may read"
            ) from None

    def meant(self, path: Path) -> Path:
        """What a path stands for."""
        path.exists()  # where the system refuses the path, it is said here
        return path


class FileArgument(PathArgument):
    """A file, for which the folder stands that holds it under its usual name."""

    def __init__(self, usual: str) -> None:
        self.usual = usual

    def meant(self, path: Path) -> Path:
        """The file."""
        return path / self.usual if path.is_dir() else path


SITE_FILE = FileArgument("site.toml")
STUDY_FILE = FileArgument("study.toml")
A_PATH = PathArgument()
