from hica_simulations.experiments.benchmarks.large_updates import (
    as_figures,
    peaks_of,
    update_bytes,
)
from hica_simulations.experiments.benchmarks.processes import Process
from hica_simulations.experiments.benchmarks.samples import Sample, last_seen

MB = 1_000_000


def test_an_update_is_what_one_site_has_sent():
    rounds = [
        {"stage": "centre", "bytes_up": 10, "participants": ["a", "b"]},
        {"stage": "alignment", "bytes_up": 600, "participants": ["a", "b", "c"]},
        {"stage": "alignment", "bytes_up": 408, "participants": ["a", "b"]},
    ]
    assert update_bytes({"rounds": rounds}) == 202


def test_the_peak_of_a_kind_is_that_of_its_largest_process_as_last_seen():
    looks = [
        [process(1, "superlink", 10), process(2, "runner", 70)],
        [process(1, "superlink", 30), process(3, "runner", 50)],
    ]
    seen = last_seen([Sample(0.0, 1, look, 0) for look in looks])
    assert peaks_of(seen) == {"superlink": 30, "runner": 70}


def process(pid: int, kind: str, peak: int) -> Process:
    return Process(pid, 0, kind, 1, 1, peak)


def test_only_what_goes_through_the_rounds_at_the_server_has_a_target():
    peaks = {"superlink": 600 * MB, "serverapp's child": 700 * MB, "runner": 2000 * MB}
    figures = {figure.name: figure for figure in as_figures(170 * MB, peaks, [20.0, 30.0])}
    assert figures["an update"].value == 170
    assert figures["superlink: peak memory"].value == 600
    assert figures["superlink: peak / update"].met
    assert figures["serverapp's child: peak / update"].met is None
    assert figures["runner: peak / update"].met is None
    seconds = [figure.value for figure in figures.values() if figure.unit == "s"]
    assert seconds == [25.0]
