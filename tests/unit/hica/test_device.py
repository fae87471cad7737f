import os

import pytest
import torch

from hica.device import autocast, precision, repeatable, select_device
from hica.errors import ConfigurationError


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs the machine has."""

    def gpus(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return gpus


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_is_chosen_by_name(gpus, name, count, expected):
    gpus(count)
    assert select_device(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda1", ""])
def test_an_unknown_name_is_refused(gpus, name):
    gpus(1)
    with pytest.raises(ConfigurationError, match="expected auto, cpu or cuda:N"):
        select_device(name)


@pytest.mark.parametrize("count", [0, 1])
def test_a_gpu_that_is_not_there_is_refused(gpus, count):
    gpus(count)
    with pytest.raises(ConfigurationError, match=rf"this machine has {count} GPU.*use auto"):
        select_device("cuda:1")


def test_a_cpu_computes_in_full_precision_and_a_gpu_in_half():
    left, right = torch.randn(4, 4), torch.randn(4, 4)
    with autocast(torch.device("cpu")):
        assert (left @ right).dtype == torch.float32 == precision(torch.device("cpu"))
    assert precision(torch.device("cuda", 1)) == torch.bfloat16


@pytest.fixture
def _as_before():
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])


@pytest.mark.usefixtures("_as_before")
def test_repeatable_leaves_nothing_to_chance(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.set_num_threads(2)
    repeatable()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # a user's own choice stays
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    repeatable()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # without it torch raises on CUDA
