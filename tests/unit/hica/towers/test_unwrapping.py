"""Whatever is put around weights comes off, in any nesting and order."""

import argparse
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hica.errors import WeightsError
from hica.images.cache import file_sha256
from hica.towers.reading import load_weights, read_weights, weights_sha256
from hica.towers.unwrapping import OF_TORCH, PREFIXES, WRAPPERS, fitted, inside, unwrapped

PLAIN = {
    "stem.weight": torch.arange(4.0),
    "model.bias": torch.ones(2),  # a name that begins like a wrapper
    "head_norm.weight": torch.zeros(3),
}


@given(
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=4),
    prefixes=st.lists(st.sampled_from(PREFIXES), max_size=4),
    beside=st.dictionaries(
        st.sampled_from(["epoch", "optimizer", "lr_scheduler", "args", "mask_values", "loops"]),
        st.sampled_from([3, None, "x", [0, 255], {"state": {0: {"step": 1}}}, {"a": 1.5}]),
    ),
)
def test_any_nesting_gives_the_plain_weights(wrappers, prefixes, beside) -> None:
    stored: object = {"".join(prefixes) + name: value for name, value in PLAIN.items()}
    if not wrappers:
        stored = {**stored, **beside}
    for wrapper in wrappers:
        stored = OrderedDict({**beside, wrapper: stored})
    state, notes = unwrapped(stored)
    found, left_out = fitted(state, PLAIN)
    assert found.keys() == PLAIN.keys()
    assert all(found[name] is value for name, value in PLAIN.items())
    assert left_out == [] and len(notes) == (not wrappers and bool(beside))


@given(prefix=st.sampled_from(PREFIXES), without=st.sampled_from(sorted(PLAIN)), own=st.booleans())
def test_a_prefix_that_not_all_names_have_stays(prefix, without, own) -> None:
    mixed = {n if n == without else f"{prefix}{n}": value for n, value in PLAIN.items()}
    found, _ = fitted(mixed, PLAIN if own else ())
    assert found.keys() == mixed.keys()


@given(prefixes=st.lists(st.sampled_from(PREFIXES), min_size=1, max_size=3))
def test_without_names_to_go_by_only_what_pytorch_puts_there_comes_off(prefixes) -> None:
    words = "".join(prefixes)
    kept = words
    while kept.startswith(OF_TORCH):
        kept = kept.partition(".")[2]
    found, _ = fitted({f"{words}{name}": value for name, value in PLAIN.items()}, ())
    assert found.keys() == {f"{kept}{name}" for name in PLAIN}


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        (("student", "teacher"), "teacher"),  # DINO
        (("state_dict", "state_dict_ema"), "state_dict_ema"),  # timm
        (("model", "model_ema"), "model_ema"),
        (("model", "ema"), "ema"),
    ],
)
def test_of_several_the_documented_one_is_taken_and_said(stored, taken) -> None:
    tensors = {name: {"a": torch.full((1,), float(i))} for i, name in enumerate(stored)}
    state, notes = unwrapped({**tensors, "epoch": 3})
    assert state["a"] is tensors[taken]["a"]
    assert notes == [f"of {', '.join(sorted(stored, key=WRAPPERS.index))}, {taken} is taken"]


def test_two_networks_in_one_table() -> None:
    both = {
        f"{side}.{name}": value
        for side in ("student", "teacher")
        for name, value in {"backbone.a": torch.ones(1), "dino_head.b": torch.ones(1)}.items()
    }
    found, notes = fitted(both, ["a"], ("dino_head.",))
    assert found.keys() == {"a"}
    assert notes[0].startswith("the weights below teacher are taken, not student.backbone.a")
    moco = {
        "module.encoder_q.a": torch.ones(1),
        "module.encoder_k.a": torch.zeros(1),
        "module.queue": torch.zeros(1),
    }
    assert fitted(moco, ["a"])[0] == {"a": moco["module.encoder_q.a"]}


def test_a_head_beside_a_backbone_is_left_out_and_named() -> None:
    stored = {"backbone.a": torch.ones(1), "head.mlp.weight": torch.ones(1)}
    found, notes = fitted(stored, ["a"], ("head.",))
    assert found.keys() == {"a"} and notes == ["head.mlp.weight: a head that is not used, left out"]
    assert fitted(stored, ["a"])[0].keys() == stored.keys()  # where no head is documented


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([1, 2], "a list"),
        ({}, "a table of nothing"),
        ({"epoch": 3, "generator": {"a": torch.ones(1)}}, "a table of epoch, generator, with no"),
        ({"model": {"layers": {"a": torch.ones(1)}}}, "a table of model"),
        ({3: torch.ones(1)}, "a table of 3"),
    ],
)
def test_what_holds_no_weights_says_what_it_holds(stored, words) -> None:
    with pytest.raises(ValueError, match=words):
        unwrapped(stored)


def saved(path, stored):
    torch.save(stored, path)
    return path


def test_bookkeeping_of_training_programs_is_passed_over(tmp_path) -> None:
    """Arguments and scores come as objects of argparse and NumPy, whose code is not run."""
    beside = {
        "args": argparse.Namespace(lr=0.1, output=None),
        "best": np.float64(0.91),
        "score": np.float32(0.5),
        "epoch": np.int64(3),
    }
    path = saved(tmp_path / "mine.pth", {"model": PLAIN, **beside})
    assert read_weights(path).keys() == PLAIN.keys()


def test_an_object_with_code_is_never_loaded_and_has_a_remedy(tmp_path) -> None:
    marks = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return type(marks).touch, (marks,)

    path = saved(tmp_path / "evil.pth", {"model": PLAIN, "callback": Evil()})
    with pytest.raises(WeightsError, match=r"an object with code of its own.*weights_only=False"):
        read_weights(path)
    assert not marks.exists()
    path = saved(tmp_path / "whole.pth", {"model": torch.nn.Linear(1, 1)})
    with pytest.raises(
        WeightsError, match=r"it holds torch\.nn\.modules\.linear\.Linear, an object"
    ):
        read_weights(path)
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "openai.pt"))
    with pytest.raises(WeightsError, match=r"a TorchScript archive, which is code"):
        read_weights(tmp_path / "openai.pt")


def test_files_that_are_no_weights(tmp_path) -> None:
    (tmp_path / "lfs.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(
        WeightsError, match=r"a Git LFS pointer, not the weights; run `git lfs pull`"
    ):
        read_weights(tmp_path / "lfs.bin")
    with pytest.raises(WeightsError, match="a folder, not a file"):
        read_weights(tmp_path)
    whole = saved(tmp_path / "whole.pth", {"a": torch.rand(4000)}).read_bytes()
    for length in (0, 1, 9, 100, 5000, len(whole) - 30):
        (tmp_path / "torn.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"torn\.pth: not a weights file that can be read"):
            read_weights(tmp_path / "torn.pth")


def test_a_file_of_another_user(tmp_path, monkeypatch) -> None:
    path = saved(tmp_path / "closed.pth", PLAIN)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(WeightsError, match=r"closed\.pth: cannot be read: Permission denied; give"):
        read_weights(path)


@pytest.mark.parametrize(
    "how",
    [{}, {"_use_new_zipfile_serialization": False}],
    ids=["as now", "before PyTorch 1.6"],
)
@pytest.mark.parametrize(
    ("stored", "remedy"),
    [
        (torch.nn.Linear(1, 1), "torch.save(c.state_dict(), 'plain.pth')"),
        (torch.nn.DataParallel(torch.nn.Linear(1, 1)), "torch.save(c.state_dict(), 'plain.pth')"),
        ({"state_dict": PLAIN, "x": torch.nn.Linear(1, 1)}, "torch.save(c['state_dict'], "),
        (OrderedDict(state_dict=PLAIN, x=torch.nn.Linear(1, 1)), "torch.save(c['state_dict'], "),
    ],
    ids=["module", "parallel", "table", "ordered table"],
)
def test_the_remedy_for_a_whole_model_is_another_than_for_a_table(
    tmp_path, how, stored, remedy
) -> None:
    torch.save(stored, tmp_path / "whole.pth", **how)
    with pytest.raises(WeightsError) as error:
        read_weights(tmp_path / "whole.pth")
    assert remedy in str(error.value)


def test_a_part_that_fits_is_told_by_names_that_are_safe_to_copy() -> None:
    own = {"a.weight", "b.weight"}
    state = {f"trunk.{key}": torch.ones(1) for key in own}
    assert inside(state, own).startswith("the names below trunk. fit this model. Save only those")
    beside = {f"x{i}": torch.ones(1) for i in range(9)}
    assert "beside them is x0, x1, x2, x3 and 5 more. Save" in inside({**state, **beside}, own)
    assert inside({"trunk.a.weight": torch.ones(1)}, own) == ""
    assert inside({f"it's.{key}": torch.ones(1) for key in own}, own) == ""
    assert inside(state, set()) == ""


def test_a_negative_variance_is_named(tmp_path) -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    state = {**module.state_dict(), "0.running_var": torch.tensor([1.0, -0.5])}
    words = r"x\.pth: 0\.running_var: negative, which no variance is, so these weights are broken"
    with pytest.raises(WeightsError, match=words):
        load_weights(module, state, tmp_path / "x.pth", "net")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(tmp_path, value) -> None:
    module = torch.nn.Linear(2, 2)
    state = {**module.state_dict(), "bias": torch.tensor([0.0, value])}
    with pytest.raises(WeightsError, match=r"x\.pth: bias: NaN or infinite, so these weights are"):
        load_weights(module, state, tmp_path / "x.pth", "net")


def test_numbers_too_large_for_float32_are_not_finite(tmp_path) -> None:
    module = torch.nn.Linear(1, 1)
    double = {"weight": torch.tensor([[1e300]], dtype=torch.float64), "bias": torch.zeros(1)}
    read = read_weights(saved(tmp_path / "x.pth", double))
    with pytest.raises(WeightsError, match="weight: NaN or infinite"):
        load_weights(module, read, tmp_path / "x.pth", "net")


def test_whole_numbers_are_no_weights(tmp_path) -> None:
    module = torch.nn.Linear(1, 1)
    state = {**module.state_dict(), "weight": torch.ones(1, 1, dtype=torch.int8)}
    with pytest.raises(
        WeightsError, match="weight: whole numbers in place of weights, as in a quant"
    ):
        load_weights(module, state, tmp_path / "x.pth", "net")


def test_an_error_names_no_more_than_ten_keys(tmp_path) -> None:
    module = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(200)))
    other = {f"layer{i}.{'x' * 500}": torch.zeros(1) for i in range(200)}
    with pytest.raises(WeightsError) as error:
        load_weights(module, {**other, "0.bias": torch.zeros(9)}, tmp_path / "x.pth", "net")
    words = str(error.value)
    assert words.count("layer") + words.count(".weight") + words.count(".bias") <= 10
    assert "and 197 more" in words and len(words) < 1000


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_parts_are_read_by_their_index(tmp_path, safe) -> None:
    import json

    from safetensors.torch import save_file

    suffix = "safetensors" if safe else "bin"
    parts = {}
    for number, (name, value) in enumerate(PLAIN.items()):
        file = f"model-{number}.{suffix}"
        save_file({name: value}, tmp_path / file) if safe else saved(tmp_path / file, {name: value})
        parts[name] = file
    index = tmp_path / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    pin = weights_sha256(index)
    assert read_weights(index, pin).keys() == PLAIN.keys()
    other = torch.ones(3)
    save_file({"head_norm.weight": other}, tmp_path / f"model-2.{suffix}")
    with pytest.raises(WeightsError, match="other weights than the study's"):
        read_weights(index, pin)
    (tmp_path / f"model-2.{suffix}").unlink()
    with pytest.raises(WeightsError, match=r"model-2.*no such file, but model\."):
        read_weights(index, pin)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.bin"}}))
    with pytest.raises(WeightsError, match="leads out of the folder"):
        read_weights(index)
    index.write_text(json.dumps({"metadata": {}}))
    with pytest.raises(WeightsError, match="has no weight_map"):
        read_weights(index)


def test_a_file_is_read_by_what_it_holds_not_by_its_name(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file(PLAIN, tmp_path / "weights.bin")
    path = tmp_path / "weights.bin"
    assert read_weights(path, file_sha256(path)).keys() == PLAIN.keys()
    for name in ("a.ckpt", "a.bin", "a.pt"):
        assert read_weights(saved(tmp_path / name, {"state_dict": PLAIN})).keys() == PLAIN.keys()
