import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hica.errors import CheckpointError
from hica.images.cache import file_sha256
from hica.towers.reading import load_weights, read_weights
from hica.towers.weights import draw_weights, fingerprint


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def test_drawn_weights_depend_on_the_seed_alone() -> None:
    one, two, other = network(), network(), network()
    draw_weights(one, 3)
    torch.rand(5)
    draw_weights(two, 3)
    draw_weights(other, 4)
    assert fingerprint("", one) == fingerprint("", two) != fingerprint("", other)


def test_drawn_weights_are_the_same_on_every_machine() -> None:
    layer = nn.Linear(2, 2, bias=False)
    draw_weights(layer, 0)
    # The first 24-bit integers of np.random.PCG64(0), as NumPy 2 draws them on x86-64.
    uniform = torch.tensor([[0xD9C282, 0xA30FEB], [0x82D9D7, 0x4510BD]]) / 2**24
    assert torch.equal(layer.weight, (2 * uniform - 1) * 1.5**0.5)


def test_drawn_weights_have_the_documented_variance() -> None:
    layers = nn.ModuleList([nn.Linear(400, 300), nn.Conv2d(40, 80, 3)])
    draw_weights(layers, 0)
    assert layers[0].weight.var().item() == pytest.approx(1 / 400, rel=0.02)
    assert layers[1].weight.var().item() == pytest.approx(2 / 360, rel=0.02)


def test_drawing_keeps_constants_and_the_global_generator() -> None:
    module = network()
    state = torch.random.get_rng_state()
    draw_weights(module, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(module[1].weight, torch.ones(8))


def test_fingerprint_sees_description_names_and_buffers() -> None:
    module = network()
    before = fingerprint("a", module)
    assert before != fingerprint("b", module)
    module[1].running_mean += 1
    assert before != fingerprint("a", module)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_half_precision_weights_are_read_as_float32(tmp_path, suffix) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {"a": torch.rand(3).half(), "steps": torch.tensor(2)}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    read = read_weights(path, file_sha256(path))
    assert read["a"].dtype == torch.float32 and read["steps"].dtype == torch.int64
    assert torch.equal(read["a"], state["a"].float())


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pt: no such weights file; put it there"):
        read_weights(tmp_path / "nowhere.pt")


def test_wrong_hash_shows_both(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.rand(3)}, path)
    with pytest.raises(CheckpointError) as error:
        read_weights(path, "0" * 64)
    assert "0" * 64 in str(error.value) and file_sha256(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_file_that_holds_no_weights(tmp_path, suffix) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(CheckpointError, match="not a weights file that can be read"):
        read_weights(path)


def test_file_that_holds_something_else(tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1, 2], path)
    with pytest.raises(
        CheckpointError, match=r"holds no state dict but a list; save model\.state_dict"
    ):
        read_weights(path)


def test_weights_load_whole_or_not_at_all(tmp_path) -> None:
    module = network()
    before = fingerprint("", module)
    good = network().state_dict()
    bad = {name: value for name, value in good.items() if name != "0.bias"}
    bad["extra"] = torch.zeros(1)
    bad["3.weight"] = torch.zeros(5, 8)
    with pytest.raises(CheckpointError) as error:
        load_weights(module, bad, tmp_path / "file.pth", "net")
    for part in ("file.pth", "net", "missing: 0.bias", "unexpected: extra", "shape: 3.weight"):
        assert part in str(error.value)
    assert fingerprint("", module) == before
    load_weights(module, good, tmp_path / "file.pth", "net")
    assert torch.equal(module[0].weight, good["0.weight"])


def test_batch_norm_counters_may_be_missing(tmp_path) -> None:
    state = {n: v for n, v in network().state_dict().items() if "num_batches" not in n}
    load_weights(network(), state, tmp_path / "old.pth", "net")
