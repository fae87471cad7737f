"""A federation whose sites have a GPU: it runs, it repeats, and it agrees with one of CPUs.

Where there is no GPU, a CPU that rounds as a GPU does stands for it in the last.
"""

import numpy as np
import pytest
import torch

from hica.device import repeatable
from hica.towers.from_study import adapted_tower
from hica_server.publication import make_bank, publish
from hica_server.state import RunState

WAYS = [(train, layers) for train in ("adapter", "lora", "full") for layers in (0, 3)]
WAYS += [("last-1", 0), ("last-1", 2)]
CHEAP = [("adapter", 0)]

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU, which this machine has not"
)


@pytest.fixture(autouse=True)
def _repeatable():
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    repeatable()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture
def round_as_a_gpu(monkeypatch):
    """Has CPUs compute in bfloat16 from then on."""

    def round_as_a_gpu():
        for module in ("hica.device", "hica.cohort.pipeline"):
            monkeypatch.setattr(f"{module}.precision", lambda _: torch.bfloat16)

    return round_as_a_gpu


@pytest.fixture
def sites_on(draw_site):
    """The same three sites, with another device of theirs."""
    paths = [draw_site(name) for name in ("north", "south", "west")]

    def sites_on(device):
        for path in paths:
            text = path.read_text()
            path.write_text(f'{text[: text.index("[device]")]}[device]\nuse = "{device}"\n')
        return paths

    return sites_on


@pytest.mark.parametrize(
    ("train", "layers", "device"),
    [
        *(pytest.param(*way, "cuda:0", marks=needs_gpu) for way in WAYS),
        *(
            pytest.param(*way, "cpu", marks=[] if way in CHEAP else pytest.mark.matrix)
            for way in WAYS
            if way != ("full", 3)  # where its centre drifts by 8 %
        ),
    ],
)
def test_a_gpu_repeats_itself_and_agrees_with_a_cpu(
    federate, sites_on, toy_study, arrays_of, round_as_a_gpu, tmp_path, train, layers, device
):
    short = () if device != "cpu" else ("pretraining.rounds=0", "calibration.rounds=0")
    study = toy_study(f"model.train={train}", f"model.layers={layers}", *short)

    def trained(out, device):
        result = federate(study, sites_on(device), out)
        assert all(entry["refused"] == {} for entry in result["rounds"])
        return arrays_of(out)

    exact = trained("cpu", "cpu")
    if device == "cpu":
        round_as_a_gpu()
    one, two = trained("one", device), trained("two", device)
    assert not all(np.array_equal(array, exact[name]) for name, array in one.items())
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
        size = max(np.abs(exact[name]).max(), 1.0)
        assert np.abs(array - exact[name]).max() < 0.05 * size, name

    publish(study, tmp_path / "start", tmp_path, lambda study, dim: make_bank(study, dim, tmp_path))
    start = RunState.load(tmp_path / "start", study.sha256).learnt.shared
    tower = [name for name in start if name.startswith("tower.")]
    changes = [
        np.concatenate([(arrays[name] - start[name]).ravel() for name in tower])
        for arrays in (one, exact)
    ]
    cosine = changes[0] @ changes[1] / np.prod([np.linalg.norm(change) for change in changes])
    assert cosine > 0.5  # a few steps of Adam, in which small gradients count as much as large ones


@needs_gpu
def test_convolutions_keep_the_layout_that_cudnn_knows_at_once(toy_study, tmp_path):
    tower = adapted_tower(toy_study(), tmp_path, torch.device("cuda"))
    assert all(weight.is_contiguous() for weight in tower.parameters())
