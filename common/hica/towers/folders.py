"""folders: models in a folder of the hub's layout, pinned by one hash over all that is used."""

from collections.abc import Sequence
from pathlib import Path

from hica import hub
from hica.below import below
from hica.errors import WeightsError
from hica.model_folder import look_through
from hica.towers.reading import INDEX, listing_sha256, parts_of, refuse_other
from hica.towers.weights import Wanted

TEXTS = ("*.json", "*.txt", "*.model")
"""Configuration, preprocessing, tokenizer."""
POOLING = "1_Pooling/config.json"
"""Of a sentence encoder: how a sentence is made of its tokens."""
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
"""One of these has the words; without any, transformers makes a tokenizer that knows none."""
IMAGE = "model.image"
"""What must be pinned: all sites load it. Texts are embedded by the coordinator alone, unless
sites read reports."""


def model_folder(name: str, kinds: Sequence[Sequence[str]], wanted: Wanted, key: str) -> Path:
    """The folder below the weights folder, else that of `OWNER/NAME@COMMIT` in the hub's cache.

    It has been looked through. `kinds` are those of `hica.hub.model`; `key` is the setting that has
    the name.

    Raises:
        WeightsError: It leads out of the folder of weights, or is neither.
    """
    if hub.PINNED.fullmatch(name):
        return hub.model(name, kinds, wanted.hubs, key)
    folder = below(wanted.weights, name, key)
    if not folder.is_dir():
        raise WeightsError(
            f"{key} = {name!r}: {folder}: no such folder; put the model's folder there, as it is "
            "on the hub, or write OWNER/NAME@COMMIT with all 40 digits of the commit"
        )
    look_through(folder, key)
    return folder.resolve()


def weights_in(folder: Path, files: Sequence[str], key: str) -> Path:
    """The weights file of a folder: the first there is of `files`.

    Raises:
        WeightsError: There is none; names what would do.
    """
    for name in files:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{key}: {folder}: no weights in it; put one of {', '.join(files)} there")


def has_words(folder: Path) -> bool:
    """Whether a folder has the words of a tokenizer."""
    return any(any(folder.glob(pattern)) for pattern in TOKENIZERS)


def folder_sha256(folder: Path, weights: Path) -> str:
    """SHA-256, in hex, over a model's folder: its texts and the weights that are read.

    What else lies there (a README, images, the same weights in another format) has no part in it,
    and neither has the folder's path.
    """
    files = {
        path for pattern in (*TEXTS, POOLING) for path in folder.glob(pattern) if path.is_file()
    }
    parts = parts_of(weights) if weights.name.endswith(INDEX) else []
    return listing_sha256(
        {path for path in {*files, weights, *parts} if path.name[:1] != "."}, folder
    )


def check_pin(name: str, folder: Path, weights: Path, wanted: Wanted, key: str) -> None:
    """Check that a folder is the one that is pinned: by commit, or by its hash.

    Raises:
        WeightsError: It is another one, or not pinned; says the line that pins it.
    """
    free = key != IMAGE and not wanted.pinned
    if wanted.sha256 is None and (hub.PINNED.fullmatch(name) or free):
        return
    found = folder_sha256(folder, weights)
    if wanted.sha256 is None:
        pin = "sha256" if key == IMAGE else "text_sha256"
        raise WeightsError(
            f"{key} = {name!r}: not pinned, so that sites could start from different weights; "
            f'if these are the right ones, add to [model]: {pin} = "{found}"'
        )
    refuse_other(folder, found, wanted.sha256)
