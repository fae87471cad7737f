"""`hica-server logs`: what the server's processes have logged, as `tail` shows it."""

import subprocess
from pathlib import Path

from hica.errors import ConfigurationError
from hica_server.settings import Folder


def show_logs(root: Path, service: str | None, lines: int, follow: bool) -> None:
    """Print the last lines of each log, or of that of one service, under its name.

    `follow` goes on with lines as they are added, until interrupted; also across rotations.

    Raises:
        ConfigurationError: There is no such log; names those there are.
    """
    files = log_files(Folder(root.resolve()), service)
    following = ["--follow=name", "--retry"] if follow else []
    subprocess.run(["tail", "--verbose", f"--lines={lines}", *following, *files], check=True)


def log_files(folder: Folder, service: str | None) -> list[Path]:
    """The log files of a coordinator, or of one of its services."""
    files = {path.stem: path for path in sorted(folder.logs.glob("*.log"))}
    if not files:
        raise ConfigurationError(
            f"{folder.logs}: no logs yet; they are written by: hica-server run {folder.root}"
        )
    if service is not None and service not in files:
        raise ConfigurationError(f"--service {service}: choose one of {', '.join(files)}")
    return [path for name, path in files.items() if service in (None, name)]
