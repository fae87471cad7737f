"""What every test shares."""

import os

# Threads that wait for each other make small tensors slow on a busy machine. Read when torch is
# first imported, by the commands that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from hica.study import Study, apply_overrides, validated

# Tests have no wall-clock bounds: a busy machine is no failure.
settings.register_profile("hica", deadline=None)
settings.load_profile("hica")

TOY_STUDY = {
    "study": {"name": "toy"},
    "model": {"train": "adapter", "adapter_width": 8},
    "classes": [
        {
            "name": "round",
            "prompts": ["a round smooth mass"],
            "findings": ["smooth margin", "round shape"],
        },
        {
            "name": "square",
            "prompts": ["a square striped mass"],
            "findings": ["striped texture", "square shape"],
        },
    ],
    "text": {"epochs": 0},
    "pretraining": {"rounds": 2, "clusters": 3, "lloyd_rounds": 2},
    "alignment": {"rounds": 2, "shots": 4, "views": 2},
    "personal": {"epochs": 2},
    "regions": {"method": "masks", "count": 2},
    "federation": {"min_count": 3, "retries": 0},
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Numbers drawn by a test are the same in every run, whichever tests ran before it."""
    import torch  # not by the process that only hands tests out

    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def toy_study() -> Callable[..., Study]:
    """Makes a small study of round and square masses; arguments are overrides `a.b=value`."""
    return lambda *overrides: validated(Study, apply_overrides(TOY_STUDY, list(overrides)), "toy")


@pytest.fixture
def hold_elsewhere() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds a lock file; `deaf`: whether it ignores SIGTERM."""
    code = (
        "import signal, sys, time\n"
        "from pathlib import Path; from hica.deployment.lockfile import hold\n"
        "if sys.argv[2] == 'True': signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with hold(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(600)"
    )
    started = []

    def start(lock: Path, deaf: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(lock), str(deaf)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def draw_site(
    tmp_path: Path, draw_site_below: Callable[..., Path]
) -> Iterator[Callable[..., Path]]:
    """Makes a site of the toy study under `tmp_path/NAME` and returns its `site.toml`.

    Prepared data of the client is forgotten afterwards.
    """
    from hica_client.app import forget_sessions

    yield partial(draw_site_below, tmp_path)
    forget_sessions()


@pytest.fixture(scope="session")
def draw_site_below() -> Callable[..., Path]:
    """Makes a site of the toy study under `FOLDER/NAME` and returns its `site.toml`.

    Images show a round smooth or a square striped mass, in turn; odd rows are square.
    """

    def draw(
        root: Path, name: str, images: int = 16, labelled: bool = True, split: bool = True
    ) -> Path:
        folder = root / name
        folder.mkdir()
        draws = np.random.default_rng(sum(name.encode()))
        rows = ["image,label,patient_id,split,mask"]
        for i in range(images):
            pixels, mask = draw_mass(bool(i % 2), draws)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            Image.fromarray(mask).save(folder / f"{i}-mask.png")
            label = ("round", "square")[i % 2] if labelled else ""
            side = ("train" if i < images // 2 else "test") if split else ""
            rows.append(f"{i}.png,{label},p{i},{side},{i}-mask.png")
        (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
        (folder / "site.toml").write_text(
            f'[site]\nname = "{name}"\n'
            f'[data]\nmanifest = "manifest.csv"\nweights = "{root}"\n'
            '[device]\nuse = "cpu"\n'
        )
        return folder / "site.toml"

    return draw


def draw_mass(square: bool, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels uint8 [48, 48] and the mask of the mass, bool of the same shape."""
    pixels = draws.normal(100, 20, (48, 48))
    y, x = np.mgrid[:48, :48]
    top, left = draws.integers(16, 32, 2)
    if square:
        mask = (abs(y - top) < 8) & (abs(x - left) < 8) & ((x + y) % 4 < 2)
    else:
        mask = (y - top) ** 2 + (x - left) ** 2 < 80
    pixels[mask] += 60
    return pixels.clip(0, 255).astype(np.uint8), mask
