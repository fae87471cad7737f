"""A federation whose sites have a GPU: it runs, it repeats, and it agrees with one of CPUs."""

import os

import numpy as np
import pytest
import torch

from hica.device import repeatable
from hica.study_model import adapted_tower

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU, which this machine has not"
)


@pytest.fixture(autouse=True)
def _repeatable():
    before = torch.are_deterministic_algorithms_enabled(), dict(os.environ)
    repeatable()
    yield
    torch.use_deterministic_algorithms(before[0])
    if "CUBLAS_WORKSPACE_CONFIG" not in before[1]:
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]


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


@pytest.mark.parametrize("train", ["adapter", "last-1", "lora", "full"])
@pytest.mark.parametrize("layers", [0, 3])
def test_a_gpu_repeats_itself_and_agrees_with_a_cpu(
    federate, sites_on, toy_study, arrays_of, train, layers
):
    layers = min(layers, 2) if train == "last-1" else layers
    study = toy_study(f"model.train={train}", f"model.layers={layers}")
    found = {}
    for out, device in (("one", "cuda:0"), ("two", "cuda:0"), ("cpu", "cpu")):
        result = federate(study, sites_on(device), out)
        assert all(entry["refused"] == {} for entry in result["rounds"])
        found[out] = arrays_of(out)
    for name, array in found["one"].items():
        assert np.array_equal(array, found["two"][name]), name
        size = np.abs(found["cpu"][name]).max()
        assert np.abs(array - found["cpu"][name]).max() < 0.05 * max(size, 1.0), name


def test_convolutions_keep_the_layout_that_cudnn_knows_at_once(toy_study, tmp_path):
    tower = adapted_tower(toy_study(), tmp_path, torch.device("cuda"))
    assert all(weight.is_contiguous() for weight in tower.parameters())
