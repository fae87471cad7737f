"""TensorCache: tensors on disk by the hash of what they were computed from.

Those of an image have the image's own hash in front (`image_key`), so that they can be found.
"""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hica.storage import cannot_be_written, write_atomically


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(*parts: object) -> str:
    """SHA-256, in hex, over the texts of `parts`; `("ab", "c")` and `("a", "bc")` differ."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def image_key(image: str, *parts: object) -> str:
    """Key of what was computed from the image file of this SHA-256, and from `parts`."""
    return f"{image}-{key_of(image, *parts)}"


class TensorCache:
    """Named tensors by key, one safetensors file each: `root/ab/abcd….safetensors`.

    Keys come from `key_of` and `image_key`. Several processes may share a root: files appear whole
    or not at all.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors put under `key`, on the CPU; None where they must be computed (again)."""
        path = self._path(key)
        try:
            return load_file(path)
        except FileNotFoundError:
            return None
        except SafetensorError:  # cut short by a crash of the machine
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors` under `key`.

        Raises:
            StorageError: The disk is full or may not be written; nothing half-written stays.
        """
        own = {name: _own(tensor.detach().cpu().contiguous()) for name, tensor in tensors.items()}
        write_atomically(self._path(key), save(own), mode=0o600, durable=False)

    def forget(self, image: str) -> None:
        """Delete what was computed from the image file of this SHA-256.

        Raises:
            StorageError: It cannot be deleted.
        """
        for path in self.root.glob(f"{image[:2]}/{image}-*"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_be_written(path, error) from error

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"


def _own(tensor: Tensor) -> Tensor:
    """`tensor`, copied where it is a part of a larger one, which safetensors refuses to save."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
