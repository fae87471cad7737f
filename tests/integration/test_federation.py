"""Whole federations of three small sites: every way to train, every rule, and sites that fail."""

import math
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from hica.errors import ConfigurationError, FederationError
from hica_server.app import Watcher

NAMES = ("north", "south", "west")
SHORT = ("pretraining.rounds=0", "calibration.rounds=0")


@pytest.fixture
def three_sites(draw_site):
    return [draw_site(name) for name in NAMES]


@pytest.fixture
def shared(share_run):
    """A run of three sites that several tests compare theirs with."""
    return lambda *overrides: share_run(NAMES, *overrides)


def stages(result):
    return [entry["stage"] for entry in result["rounds"]]


def metrics(result):
    """What must not depend on the clock."""
    return {key: result[key] for key in ("final", "per_site", "baselines", "text_bank_sha256")}


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("train", "rate"),
    [
        ("adapter", 3e-3),
        ("lora", 3e-3),
        pytest.param("last-1", 3e-4, marks=pytest.mark.matrix),
        pytest.param("full", 3e-4, marks=pytest.mark.matrix),
    ],
)
def test_every_way_to_train_learns_on_every_site(
    federate, three_sites, toy_study, arrays_of, train, rate
):
    study = toy_study(
        f"model.train={train}",
        f"alignment.learning_rate={rate}",
        "alignment.rounds=3",
        "alignment.local_epochs=3",
        "pretraining.rounds=1",
        "pretraining.lloyd_rounds=1",
        "calibration.rounds=1",
    )
    result = federate(study, three_sites)
    assert list(result["sites"]) == ["north", "south", "west"]
    assert result["sites"]["south"] == {
        "labelled": 8,
        "unlabelled": 8,
        "test": 8,
        "classes": {"round": 4, "square": 4},
        "notes": [],
        "withdrawn": 0,
    }
    rounds = [entry for entry in result["rounds"] if entry["stage"] == "alignment"]
    assert rounds[-1]["loss"] < rounds[0]["loss"]
    for entry in result["rounds"]:
        assert entry["participants"] == ["north", "south", "west"]
        assert (entry["refused"], entry["missing"]) == ({}, [])
        assert entry["bytes_up"] > 0 and entry["bytes_down"] > 0
    assert result["final"]["n"] == 24
    assert set(result["per_site"]) == {"north", "south", "west"}
    arrays = arrays_of("run")
    assert all(np.isfinite(array).all() for array in arrays.values())
    marks = {
        "adapter": ["tower.adapter.up.weight"],
        "last-1": ["tower.tower.layers.3.conv1.weight", "tower.tower.projection.weight"],
        "lora": ["lora_a.weight", "lora_b.weight"],
        "full": ["tower.tower.conv.weight"],
    }[train]
    assert all(any(mark in name for name in arrays) for mark in marks)


@pytest.mark.parametrize("train", ["adapter", "lora"])
def test_in_half_precision_half_as_much_travels_and_is_learnt_alike(shared, train):
    single, half = (
        shared(*SHORT, f"model.train={train}", f"federation.precision={precision}")
        for precision in ("single", "half")
    )
    weights = {name for name in half.arrays if name.startswith(("tower.", "bank."))}
    assert {str(half.arrays[name].dtype) for name in weights} == {"float16"}
    assert {str(single.arrays[name].dtype) for name in weights} == {"float32"}
    for one, other in zip(single.result["rounds"], half.result["rounds"], strict=True):
        if one["stage"] == "alignment":
            assert other["bytes_up"] < 0.75 * one["bytes_up"]
            assert other["loss"] == pytest.approx(one["loss"], rel=0.01)


def test_the_order_of_steps_with_and_without_stage_1(shared):
    own = "personal.epochs=1"
    with_stage_1 = stages(shared(own).result)
    without = stages(shared("pretraining.rounds=0", own).result)
    begin = ["capabilities", "centre", "evaluation"]
    stage_1 = ["clusters"] * 4 + ["pretraining"] * 2 + ["centre"]  # start, two of Lloyd, assign
    rounds = ["alignment", "centre"] * 2
    end = ["prototypes", *rounds, *["calibration"] * 4, "personal", "evaluation", "result"]
    assert with_stage_1 == begin + stage_1 + end
    assert without == begin + end


def test_the_run_directory_tells_what_was_done(federate, three_sites, toy_study, tmp_path):
    study = toy_study("pretraining.rounds=0")
    told = []
    watcher = Watcher(lambda *step: told.append(step), lambda entry: told.append(entry["stage"]))
    result = federate(study, three_sites, watcher=watcher)
    assert told[0] == "capabilities"
    assert told[1:3] == [("centre", 0, 13), "centre"]
    assert told[-2:] == [("telling the end", 12, 13), "result"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "study.json",
        "state.safetensors",
        "state.previous.safetensors",
        "model.safetensors",
        "model.json",
        "result.json",
    }
    assert result["checkpoint"] == "model.safetensors"
    assert result["study_sha256"] == study.sha256
    with safe_open(tmp_path / "run" / "model.safetensors", "numpy") as file:
        assert {"centre", "bias", "bank.classes", "anchor.findings"} <= set(file.keys())
    with pytest.raises(ConfigurationError, match="another study"):
        federate(toy_study("study.seed=1"), three_sites)


@pytest.mark.parametrize("rule", ["adam", "yogi", "median", "trimmed-mean", "krum"])
def test_every_rule_of_aggregation_runs_to_the_end(federate, three_sites, toy_study, rule):
    study = toy_study(
        f"federation.aggregation={rule}",
        "federation.trim=0.34",
        "pretraining.rounds=1",
        "calibration.rounds=0",
    )
    result = federate(study, three_sites)
    losses = [entry["loss"] for entry in result["rounds"] if entry["loss"] is not None]
    assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize(
    "change",
    [
        "alignment.contrast=batch",
        "alignment.assignment=matching",
        "alignment.centring=site",
        "alignment.train_text_bank=false",
        "alignment.region_blend=0.3",
        "federation.weighting=sites",
    ],
)
def test_the_other_forms_of_the_objective_run_and_differ(shared, change):
    plain, changed = shared(*SHORT).arrays, shared(*SHORT, change).arrays
    if change in ("alignment.region_blend=0.3", "federation.weighting=sites"):
        # Only predictions change, or nothing: all sites have as many examples.
        assert equal(plain, changed)
    else:
        assert not equal(plain, changed)


# --- Seeds ---------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_metrics_to_the_bit(
    shared, federate, three_sites, toy_study, arrays_of
):
    again = federate(toy_study(), three_sites)
    assert equal(shared().arrays, arrays_of("run"))
    assert metrics(shared().result) == metrics(again)


def test_nor_do_they_depend_on_the_order_in_which_sites_connect(
    shared, federate, three_sites, toy_study, arrays_of
):
    again = federate(toy_study(), three_sites[::-1])
    assert equal(shared().arrays, arrays_of("run"))
    assert metrics(shared().result) == metrics(again)


def test_another_seed_gives_other_weights(shared):
    first, other = shared().arrays, shared("study.seed=1").arrays
    assert not any(np.array_equal(first[name], other[name]) for name in ("centre", "bank.classes"))


# --- Sites that cannot do everything, or anything ------------------------------------------------


def test_a_site_without_labels_takes_part_in_stage_1_only(federate, draw_site, toy_study):
    sites = [draw_site("north"), draw_site("south"), draw_site("west", labelled=False, split=False)]
    result = federate(toy_study(), sites)
    assert result["sites"]["west"]["labelled"] == 0
    assert result["sites"]["west"]["unlabelled"] == 16
    for entry in result["rounds"]:
        first = ("capabilities", "centre", "clusters", "pretraining")
        everyone = entry["stage"] in (*first, "result")
        wanted = ["north", "south", "west"] if everyone else ["north", "south"]
        assert entry["participants"] == wanted, entry["stage"]
    assert set(result["per_site"]) == {"north", "south"}


def test_a_site_with_too_few_held_out_patients_trains_and_is_not_tested(
    federate, draw_site, toy_study
):
    sites = [draw_site("north"), draw_site("south"), draw_site("west", images=4)]
    result = federate(toy_study(), sites)
    assert result["sites"]["west"]["test"] == 0
    aligned = [entry for entry in result["rounds"] if entry["stage"] == "alignment"]
    assert all("west" in entry["participants"] for entry in aligned)
    assert set(result["per_site"]) == {"north", "south"}


def test_a_site_that_fails_every_time_is_named_and_left_out(
    federate, three_sites, toy_study, tmp_path
):
    bad = tmp_path / "west" / "3.png"  # a training image
    bad.write_bytes(bad.read_bytes()[:100])
    result = federate(toy_study(), three_sites)
    assert all(entry["participants"] == ["north", "south"] for entry in result["rounds"])
    assert "3.png: cannot be decoded" in result["rounds"][0]["refused"]["west"]


def test_below_the_quorum_the_run_stops_and_goes_on_once_the_site_is_mended(
    federate, three_sites, toy_study, tmp_path, arrays_of
):
    study = toy_study("federation.quorum=3")
    federate(study, three_sites, "never failed")
    shutil.rmtree(tmp_path / "west" / "state")  # as if the study came to it for the first time
    bad = tmp_path / "west" / "3.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:100])
    with pytest.raises(FederationError, match=r"2 of 3 sites.*west: failed.*3\.png: cannot be"):
        federate(study, three_sites)
    bad.write_bytes(good)
    federate(study, three_sites)
    assert equal(arrays_of("run"), arrays_of("never failed"))


def test_a_site_with_other_weights_on_disk_is_refused_with_the_reason(
    federate, three_sites, toy_study, tmp_path
):
    import timm
    from safetensors.torch import save_file

    from hica.images.cache import file_sha256

    weights = tmp_path / "weights.safetensors"
    trunk = timm.create_model("test_efficientnet", num_classes=0)
    save_file(trunk.state_dict(), weights)
    (tmp_path / "south" / "weights.safetensors").write_bytes(b"something else")
    for name in ("south", "west"):  # they look below their own folders, where west has nothing
        text = three_sites[("north", "south", "west").index(name)]
        text.write_text(text.read_text().replace(str(tmp_path), str(tmp_path / name)))
    study = toy_study(
        "model.image=timm/test_efficientnet",
        "model.image_size=64",
        "model.checkpoint=weights.safetensors",
        "model.mean=[0.5, 0.5, 0.5]",
        "model.std=[0.5, 0.5, 0.5]",
        f"model.sha256={file_sha256(weights)}",
        "pretraining.rounds=0",
        "federation.quorum=1",
    )
    result = federate(study, three_sites)
    assert list(result["sites"]) == ["north"]
    [meeting] = [entry for entry in result["rounds"] if entry["stage"] == "capabilities"]
    reasons = meeting["refused"]
    for name in ("south", "west"):  # why stays in their logs
        assert "not those that the study names or pins" in reasons[name]
        assert str(tmp_path) not in reasons[name]
