"""What the processes of a coordinator or a hospital have logged, as `tail` shows it."""

import signal
import subprocess
from pathlib import Path

from hica.errors import ConfigurationError, StorageError


def show_logs(folder: Path, service: str | None, lines: int, follow: bool, writer: str) -> None:
    """Print the last lines of each log in a folder, or of that of one service, under its name.

    `follow` goes on with lines as they are added, until interrupted; also across rotations.
    `writer` is the command that writes these logs.

    Raises:
        ConfigurationError: There is no such log; names those there are.
        StorageError: A log cannot be read.
        BrokenPipeError: Nobody reads on.
    """
    files = log_files(folder, service, writer)
    following = ["--follow=name", "--retry"] if follow else []
    code = subprocess.run(
        ["tail", "--verbose", f"--lines={lines}", *following, *files], check=False
    ).returncode
    if code == -signal.SIGPIPE:
        raise BrokenPipeError
    if code:
        raise StorageError(
            f"{folder}: not all logs could be shown (tail ended with {code}, and says why above): "
            "make them readable for this user"
        )


def log_files(folder: Path, service: str | None, writer: str) -> list[Path]:
    """The log files in a folder, or that of one service."""
    files = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if not files:
        raise ConfigurationError(f"{folder}: no logs yet; they are written by: {writer}")
    if service is not None and service not in files:
        raise ConfigurationError(f"--service {service}: choose one of {', '.join(files)}")
    return [path for name, path in files.items() if service in (None, name)]
