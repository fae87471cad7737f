import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from hica.method.model import AlignmentModel
from hica.steps.alignment import ALIGNMENT
from hica.towers import load_image_tower
from hica.towers.adaptation import adapt
from hica.wire.messages import Reply
from hica.wire.records import decode_request, encode_reply
from hica_simulations.experiments.benchmarks import __main__ as bench
from hica_simulations.experiments.benchmarks import engines
from hica_simulations.experiments.benchmarks.engines import Engine, adapter_arrays, compare_engines
from hica_simulations.experiments.benchmarks.features import compare_features
from hica_simulations.experiments.benchmarks.regions import (
    CropModel,
    compare_regions,
    quadrants,
    random_bank,
    random_examples,
)
from hica_simulations.experiments.benchmarks.timing import Figure, alternate, clock, machine, ratio
from hica_simulations.grid import run_in_process

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)


@pytest.fixture
def tower():
    return adapt(load_image_tower("tiny"), "full")


@pytest.fixture
def run_bench(capsys):
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            bench.main(arguments)
        return end.value.code, capsys.readouterr().out

    return run


def test_the_ratio_is_the_median_of_the_pairs_and_not_the_pair_of_medians():
    above, below = [2.0, 30.0, 8.0], [1.0, 10.0, 2.0]
    assert ratio(above, below) == 3.0  # of 2, 3, 4; the medians' would be 8 / 2 = 4


def test_ratios_need_pairs():
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


def test_ways_are_taken_in_turn_forwards_and_backwards_after_a_turn_that_does_not_count():
    taken = []

    def way(name: str):
        def measure() -> float:
            taken.append(name)
            return float(len(taken))

        return measure

    measured = alternate({"a": way("a"), "b": way("b")}, repeat=3)
    assert "".join(taken) == "ab" + "ab" + "ba" + "ab"
    assert measured == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}


def test_the_turn_that_does_not_count_can_be_left_out():
    assert alternate({"a": iter([1.0, 2.0]).__next__}, 2, warm_up=False) == {"a": [1.0, 2.0]}


def test_the_clock_runs_the_work_once():
    ran = []
    assert clock(lambda: ran.append(1)) > 0
    assert ran == [1]


@pytest.mark.parametrize(
    ("limits", "target", "met"),
    [
        ({}, "", None),
        ({"below": 2.0}, "< 2", False),
        ({"below": 2.1}, "< 2.1", True),
        ({"at_least": 2.0}, "≥ 2", True),
        ({"at_least": 2.1}, "≥ 2.1", False),
    ],
)
def test_a_target_is_met_or_missed(limits, target, met):
    figure = Figure("step", 2.0, "×", **limits)
    assert (figure.target, figure.met) == (target, met)
    assert figure.to_dict() == {
        "name": "step",
        "value": 2.0,
        "unit": "×",
        "target": target,
        "met": met,
    }


def test_the_machine_is_described():
    here = machine()
    assert here["cores"] >= 1
    assert here["torch_threads"] == torch.get_num_threads()
    assert here["torch"] == torch.__version__.split("+")[0] or here["torch"] == torch.__version__


def sites_claiming(seconds_of_round):
    """An engine whose sites claim to have trained that long, and the rounds they were asked."""
    app, rounds = ClientApp(), []

    @app.train(ALIGNMENT.kind.split(".")[1])
    def claim(message, context):
        request = decode_request(message.content, ALIGNMENT.kind)
        rounds.append(request.round)
        details = {"seconds": seconds_of_round(request.round)}
        site = context.node_config["site"]
        reply = Reply(request.kind, site, request.round, 1, details, request.arrays)
        return Message(encode_reply(reply), reply_to=message)

    return Engine(lambda server, _, nodes: run_in_process(server, app, nodes)), rounds


def test_what_the_sites_trained_is_no_overhead():
    engine, _ = sites_claiming(lambda number: 1000.0)
    assert -3000 < engine.overhead(sites=3, rounds=1) < -2000


def test_the_first_round_is_start_up_and_no_overhead():
    engine, rounds = sites_claiming(lambda number: 0.0 if number else 1000.0)
    assert engine.overhead(sites=2, rounds=3) > 0
    assert rounds == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(engine.start_ups) == 1
    engine.overhead(sites=2, rounds=1)
    assert len(engine.start_ups) == 2


def test_the_weights_sent_are_the_tiny_adapters():
    # norm 2·128, down 128·128 + 128, up 128·128 + 128
    assert sum(array.size for array in adapter_arrays().values()) == 33_280


@pytest.fixture(
    params=[
        "in process, in Ray's place",
        pytest.param("Ray", marks=[pytest.mark.matrix, pytest.mark.ray, needs_ray]),
    ]
)
def other_engine(request, monkeypatch):
    if request.param != "Ray":
        monkeypatch.setattr(engines, "run_on_ray", run_in_process)


def test_engines_gives_the_named_figures(other_engine):
    figures = compare_engines(repeat=1, sites=2, rounds=1)
    assert [(figure.name, figure.unit, figure.target) for figure in figures] == [
        ("overhead of a round, in-process", "s", "< 0.05"),
        ("overhead of a round, Ray", "s", ""),
        ("overhead of a round, Ray / in-process", "×", "≥ 5"),
        ("start-up with the first round, in-process", "s", ""),
        ("start-up with the first round, Ray", "s", ""),
    ]
    assert figures[2].value == figures[1].value / figures[0].value


def test_regions_gives_the_named_figures():
    figures = compare_regions(repeat=1, image="tiny", batch_size=2, steps=1)
    assert [(figure.name, figure.unit, figure.target) for figure in figures] == [
        ("tiny: step, image only", "ms", ""),
        ("tiny: step, 4 regions by mask pooling", "ms", ""),
        ("tiny: step, 4 crops", "ms", ""),
        ("tiny: mask pooling / image only", "×", "< 1.15"),
        ("tiny: crops / image only", "×", ""),
        ("tiny: crops / mask pooling", "×", ""),
    ]
    alone, pooled, cropped, *ratios = (figure.value for figure in figures)
    expected = [pooled / alone, cropped / alone, cropped / pooled]
    assert ratios == pytest.approx(expected)


def test_features_gives_the_named_figures():
    cached, recomputed, saved = compare_features(repeat=1, image="tiny", images=5)
    assert cached.name == "tiny: epoch of the adapter, cached"
    assert recomputed.name == "tiny: epoch of the adapter, recomputed"
    assert (saved.name, saved.unit) == ("tiny: recomputed / cached", "×")
    assert saved.value == pytest.approx(recomputed.value / cached.value)


def test_quadrants_are_the_quarters_in_reading_order_at_full_size():
    pixels = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8)
    image = pixels.repeat_interleave(4, 0).repeat_interleave(4, 1).expand(1, 3, 8, 8)
    parts = quadrants(image)
    assert parts.shape == (1, 4, 3, 8, 8)
    assert parts.dtype == torch.uint8
    assert [part.unique().tolist() for part in parts[0]] == [[10], [20], [30], [40]]


def test_crops_are_encoded_as_images_of_their_own(tower):
    bank = random_bank(128)
    examples = random_examples(tower, 3, 0)
    pixels, region_weights = examples.hidden[:, 0], examples.region_weights[:, 0]
    images, regions = CropModel(tower, bank, True)(pixels, region_weights)
    model = AlignmentModel(tower, bank, True)
    expected = model(quadrants(pixels)[:, 2], region_weights)[0]
    torch.testing.assert_close(images, model(pixels, region_weights)[0])
    torch.testing.assert_close(regions[:, 2], expected)


@pytest.mark.parametrize("regions", [0, 4])
def test_random_examples_have_as_many_valid_regions_as_asked_for(tower, regions):
    examples = random_examples(tower, 6, regions)
    assert examples.hidden.shape == (6, 1, 3, 64, 64)
    assert examples.region_weights.shape == (6, 1, regions, 8, 8)
    assert examples.valid.shape == (6, 1, regions)
    assert bool(examples.valid.all())
    assert examples.positives.sum(dim=1).tolist() == [1] * 6


FIGURES = [
    Figure("slow", 1234.5, "ms"),
    Figure("fast", 0.5, "×", below=1.15),
    Figure("late", 2.0, "s", below=1.0),
]


@pytest.fixture
def no_work(monkeypatch):
    """Every bench hands back made-up figures at once; the value of the first is the repeats."""
    made_up = [lambda asked: [replace(FIGURES[0], value=float(asked.repeat)), *FIGURES[1:]]]
    monkeypatch.setattr(bench, "BENCHES", dict.fromkeys(bench.Name, made_up))


def test_json_holds_machine_and_figures_of_what_was_asked_for(run_bench, no_work):
    code, out = run_bench("--only", "regions", "--only", "features", "--repeat", "7", "--json")
    said = json.loads(out)
    assert (code, said["repeat"]) == (0, 7)
    assert said["machine"].keys() == machine().keys()
    assert said["figures"].keys() == {"regions", "features"}
    assert said["figures"]["regions"][0]["value"] == 7
    assert said["figures"]["regions"][1:] == [figure.to_dict() for figure in FIGURES[1:]]


def test_all_but_deployments_is_measured_where_nothing_is_asked_for(run_bench, no_work):
    measured = json.loads(run_bench("--json")[1])["figures"].keys()
    by_name = {"overhead", "endurance", "large-updates"}
    assert measured == set(bench.Name) - by_name


def test_a_deployment_is_told_what_was_asked_for(run_bench, monkeypatch):
    told = []
    monkeypatch.setitem(
        bench.BENCHES, bench.Name.ENDURANCE, [lambda asked: told.append(asked) or FIGURES]
    )
    code, out = run_bench(
        *("--only", "endurance", "--sites", "3", "--rounds", "15", "--out", "somewhere")
    )
    assert code == 0
    assert told == [bench.Asked(5, Path("somewhere"), sites=3, rounds=15)]
    assert "one run" in out


def test_the_table_shows_what_was_met_and_missed(run_bench, no_work):
    code, out = run_bench("--only", "regions", "--repeat", "1235")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    assert code == 0
    assert ["slow", "1235 ms", "", ""] in rows
    assert ["fast", "0.5 ×", "< 1.15", "met"] in rows
    assert ["late", "2 s", "< 1", "missed"] in rows
    assert f"{machine()['cores']} cores, torch threads" in out.splitlines()[-1]


def test_an_unknown_bench_is_refused_by_name(run_bench, no_work):
    assert run_bench("--only", "regoins") == (2, "")
