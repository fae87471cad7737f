"""Compare: the same study over several seeds, with and without stage 1, against its baselines.

Differences are paired by seed, because every method sees the same episode: a t-interval over the
seeds' differences says what the seeds support, where two separate intervals would hide it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hica.method.intervals import Interval, paired_interval
from hica.wire.checkpoint import write_json
from hica_simulations.experiments.baselines.every_run import simulate_with_baselines
from hica_simulations.experiments.pages import Table, markdown, points
from hica_simulations.place import Place
from hica_simulations.run import Watching, silently, simulate
from hica_simulations.scenario import load_scenario

METRICS = ("accuracy", "balanced_accuracy", "auroc")
FEDERATED = "federated"
NO_STAGE_1 = "without stage 1"


def compare(
    study: Path,
    overrides: list[str],
    place: Place,
    seeds: Sequence[int],
    watching: Watching = silently,
) -> dict[str, Any]:
    """Run every seed with and without stage 1; resumable run by run.

    `overrides` go into every run; `place.out` holds one folder a run. There are two seeds or more.

    Returns:
        `compare.json`: `values` {method: {metric: [one a seed]}}, `means`, and `differences`
        {method: {metric: interval of federated minus method}}.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        for name, method in _methods_of_seed(study, overrides, place, seed, watching).items():
            for metric in METRICS:
                values.setdefault(name, {}).setdefault(metric, []).append(method[metric]["value"])
    federated = values[FEDERATED]
    differences = {
        name: {
            metric: paired_interval(
                [ours - theirs for ours, theirs in zip(federated[metric], of[metric], strict=True)]
            )._asdict()
            for metric in METRICS
        }
        for name, of in values.items()
        if name != FEDERATED
    }
    means = {
        name: {metric: sum(of[metric]) / len(of[metric]) for metric in METRICS}
        for name, of in values.items()
    }
    result = {"seeds": list(seeds), "values": values, "means": means, "differences": differences}
    write_json(place.out / "compare.json", result)
    (place.out / "compare.md").write_text(as_markdown(result), encoding="utf-8")
    return result


def _methods_of_seed(
    study: Path, overrides: list[str], place: Place, seed: int, watching: Watching
) -> dict[str, Any]:
    """Metrics of every method at one seed, all on the same shots and test images."""
    with_seed = {"study": {"seed": seed}}
    scenario = load_scenario(study, overrides, with_seed)
    there = replace(place, out=place.out / f"seed-{seed}")
    result = simulate_with_baselines(scenario, there, watching)
    methods = {FEDERATED: result["final"], **result["baselines"]}
    if scenario.study.pretraining.rounds:
        without = load_scenario(study, overrides, {**with_seed, "pretraining": {"rounds": 0}})
        there = replace(place, out=place.out / f"seed-{seed}-no-stage-1")
        plain = simulate(without, there, watching)
        methods[NO_STAGE_1] = plain["final"]
    return methods


def as_markdown(result: dict[str, Any]) -> str:
    """The comparison as a Markdown table: mean, and federated minus method with its interval."""
    header = ["method"]
    for metric in METRICS:
        header += [metric, "federated − method"]
    lines = []
    for name, means in result["means"].items():
        line = [name.replace("_", " ")]
        for metric in METRICS:
            found = result["differences"].get(name, {}).get(metric)
            line += [f"{100 * means[metric]:.1f}", points(Interval(**found)) if found else "–"]
        lines.append(line)
    seeds = ", ".join(map(str, result["seeds"]))
    table = markdown(Table(header, lines), "---")
    return f"{table}\nSeeds {seeds}; paired 95 % t-intervals over the seeds.\n"
