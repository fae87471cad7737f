"""hub: models by name. Nothing is fetched unless this machine allows it and the name is pinned.

No library asks a hub by itself: `stay_offline` closes that way for the process, and it is open only
while `model` or `weights_file` fetch. What lies in the hub's cache on this machine may be used.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hica.errors import WeightsError
from hica.model_folder import look_through

PINNED = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[0-9A-Fa-f]{40}", re.ASCII)
"""`OWNER/NAME@COMMIT`: a commit cannot be changed later, a branch or a tag can."""
ELSEWHERE = ("[!1]*/*", "1[!_]*/*", "1_[!P]*/*", "*/*/*")
"""Patterns of files in folders: all but `1_Pooling`, which says how sentences are embedded."""
HOW_TO_ALLOW = (
    "set hubs = true in [data] of the site file (at the coordinator: of server.toml, or give "
    "--hubs)"
)

_one_at_a_time = threading.Lock()


def stay_offline() -> None:
    """Let no library of this process ask the hub, whatever its own defaults are."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True


def model(
    name: str,
    kinds: Sequence[Sequence[str]],
    hubs: bool,
    key: str,
    left_out: Sequence[str] = (),
) -> Path:
    """Folder of the model `OWNER/NAME@COMMIT` in the hub's cache, fetched before if `hubs` allows.

    It has been looked through (`hica.model_folder`). `kinds` are patterns of files: the first list
    of which the last pattern is there; `left_out` are patterns of what is not fetched, beside
    folders and code. `key` is the setting that has the name, for the errors.

    Raises:
        WeightsError: The name is not pinned, the model is not here and may not be fetched, or it
            cannot be fetched.
    """
    if not PINNED.fullmatch(name):
        raise WeightsError(
            f"{key} = {name!r}: not pinned, so that another model could come by this name; write "
            "OWNER/NAME@COMMIT with all 40 digits of the commit, or name a folder of weights"
        )
    from huggingface_hub import snapshot_download

    owner_and_name, _, commit = name.partition("@")
    folder = Path()
    for files in kinds:

        def fetch(files: Sequence[str] = files) -> str:
            return snapshot_download(
                owner_and_name,
                revision=commit.lower(),
                allow_patterns=list(files),
                ignore_patterns=[*ELSEWHERE, "*.py", *left_out],
                local_files_only=not hubs,
            )

        folder = _fetched(fetch, name, hubs, key)
        if any(folder.glob(files[-1])):
            break
    look_through(folder, key, folder.parents[1])
    return folder


def weights_file(
    owner_and_name: str, files: Sequence[str], sha256: str | None, hubs: bool, key: str
) -> Path:
    """A file of weights, the first there is of `files`; its hash is left to the caller.

    Raises:
        WeightsError: No hash is pinned, or the file is not here and may not or cannot be fetched.
    """
    if sha256 is None:
        raise WeightsError(
            f"{key}: not pinned, so that other weights could come by this name; add model.sha256, "
            f"the hash of {files[0]} of {owner_and_name}"
        )
    from huggingface_hub import hf_hub_download

    def fetch() -> str:
        for file in files[:-1]:
            try:
                return hf_hub_download(owner_and_name, file, local_files_only=not hubs)
            except Exception:  # the hub raises many kinds; the last file tells
                continue
        return hf_hub_download(owner_and_name, files[-1], local_files_only=not hubs)

    return _fetched(fetch, f"{files[0]} of {owner_and_name}", hubs, key)


def _fetched(fetch: Callable[[], str], what: str, hubs: bool, key: str) -> Path:
    """What `fetch` gives, with the way to the hub open if it may be."""
    try:
        with _open_door() if hubs else _closed_door():
            return Path(fetch())
    except Exception as error:  # the hub and its transport raise many kinds
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        if hubs:
            raise WeightsError(
                f"{key}: {what} could not be fetched from the hub ({why}); check the name and the "
                "network, or fetch it elsewhere and put it below the folder of weights"
            ) from None
        raise WeightsError(
            f"{key}: {what} is not on this machine, which fetches nothing from a hub. Fetch it "
            "where there is a network, put it below the folder of weights (data.weights of "
            "the site file, data.folder of server.toml, --data) and name it there; or "
            f"{HOW_TO_ALLOW}"
        ) from None


@contextmanager
def _open_door() -> Iterator[None]:
    """Open the way to the hub, unless the environment of the process keeps it closed."""
    from huggingface_hub import constants

    kept = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    with _one_at_a_time:
        constants.HF_HUB_OFFLINE = kept
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = True


@contextmanager
def _closed_door() -> Iterator[None]:
    stay_offline()
    yield
