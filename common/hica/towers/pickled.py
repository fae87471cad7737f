"""pickled: why a file of PyTorch is not loaded, in words, with the remedy.

What it holds is looked at, and nothing of it is run.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO

from hica.printable import plain

BEFORE_THE_OBJECT = 3
"""Pickles that PyTorch before 1.6 writes in front: a magic number, the protocol, the machine."""


def why_not_read(path: Path, error: Exception) -> str:
    """Why `torch.load` or safetensors cannot read a file, to follow "not a weights file"."""
    said = str(error)
    if "TorchScript" in said:
        return (
            ": a TorchScript archive, which is code, and code is never run; take the weights as "
            "safetensors, or save model.state_dict()"
        )
    if found := re.search(r"(?:GLOBAL|allowlist|class) ([A-Za-z_][\w.]*)", said):
        plain_weights = "c.state_dict()" if _is_one_object(path) else "c['state_dict']"
        return (
            f": it holds {found[1]}, an object with code of its own, which is never loaded. Save "
            "the plain weights anew where you trust who made the file: import torch; c = "
            f"torch.load('FILE', weights_only=False); torch.save({plain_weights}, 'plain.pth')"
        )
    first = plain(said.strip().partition("\n")[0][:200]) or type(error).__name__
    return f" ({first}); save a plain state dict as .safetensors, .pth or .pt"


def _is_one_object(path: Path) -> bool:
    """Whether a file holds one object of a class, such as a whole model, and not a table."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                for _ in range(BEFORE_THE_OBJECT):
                    _steps(file)
                return _ends_in_an_object(_steps(file))
        with zipfile.ZipFile(path) as archive:
            pickle = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(pickle) as part:
                return _ends_in_an_object(_steps(part))
    except Exception:  # of a file that is not as PyTorch writes it nothing is known
        return False


def _steps(file: IO[bytes]) -> list[tuple[str, object]]:
    """The steps of one pickle with what each is given; the file is then at the next one."""
    return [(step.name, given) for step, given, _ in pickletools.genops(file)]


def _ends_in_an_object(steps: list[tuple[str, object]]) -> bool:
    """Whether the last step fills an object, other than the table that `state_dict()` gives."""
    first = next((given for _, given in steps if isinstance(given, str)), "")
    return steps[-2][0] == "BUILD" and not first.startswith("collections")
