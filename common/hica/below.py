"""below: paths that come in a study lie below one folder, and nowhere else."""

from pathlib import Path

from hica.errors import HicaError, WeightsError


def below(folder: Path, name: Path | str, key: str, error: type[HicaError] = WeightsError) -> Path:
    """The path `folder/name`; whether it exists is not looked at.

    `name` comes with a study, where `key` is its setting: nobody at this machine has written it.

    Raises:
        HicaError: An `error`. The name leads out of the folder: it is absolute, has `..`, or a
            link on the way leads elsewhere.
    """
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a name no system takes
        inside = False
    if not inside:
        raise error(
            f"{key} = {str(name)!r}: leads out of the folder {folder}, below which the files of a "
            "study lie; put the file itself there, and name it without .. and without a link that "
            "leads elsewhere"
        )
    return folder / name
