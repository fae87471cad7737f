"""The coordinator's folders as people type them: a file in one stands for it."""

from pathlib import Path
from typing import Annotated

import typer

from hica.deployment.path_arguments import PathArgument
from hica.errors import ConfigurationError

FILES = ("study.toml", "server.toml")


class StudyFolder(PathArgument):
    """A coordinator's folder; its `study.toml` or `server.toml` stands for it."""

    def meant(self, path: Path) -> Path:
        """The folder.

        Raises:
            ConfigurationError: There is none, or it holds no study.
        """
        folder = path.parent if path.name in FILES and not path.is_dir() else path
        if not (folder / "study.toml").is_file():
            found = "no study.toml in it" if folder.is_dir() else no_folder(folder)
            raise ConfigurationError(
                f"{folder}: {found}; name the study folder that `hica-server init` made"
            )
        return folder


class RunFolder(PathArgument):
    """The folder of a run; `result.json` in it stands for it, and so does a coordinator's."""

    def meant(self, path: Path) -> Path:
        """The folder.

        Raises:
            ConfigurationError: There is none.
        """
        folder = path.parent if path.name == "result.json" and not path.is_dir() else path
        if not folder.is_dir():
            raise ConfigurationError(
                f"{folder}: {no_folder(folder)}; give that of a run that has come to its end"
            )
        is_study = (folder / "study.toml").is_file() and (folder / "run").is_dir()
        return folder / "run" if is_study else folder


def no_folder(path: Path) -> str:
    """What a path is that is no folder."""
    return "is a file, not a folder" if path.exists() else "no such folder"


STUDY_FOLDER = StudyFolder()
RUN_FOLDER = RunFolder()

Root = Annotated[
    Path,
    typer.Argument(metavar="DIR", click_type=STUDY_FOLDER, help="What `hica-server init` made."),
]
