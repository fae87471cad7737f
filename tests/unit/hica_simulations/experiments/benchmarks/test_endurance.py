import csv
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from hica_server.settings import Folder
from hica_simulations.experiments.benchmarks import samples as sampling
from hica_simulations.experiments.benchmarks.endurance import (
    Growth,
    as_figures,
    as_markdown,
    database_at,
    growths,
)
from hica_simulations.experiments.benchmarks.endurance_plot import plot
from hica_simulations.experiments.benchmarks.processes import Process
from hica_simulations.experiments.benchmarks.samples import (
    Recorder,
    Sample,
    database_size,
    write_samples,
)

MB = 1_000_000


def process(pid: int, kind: str, resident: float, anonymous: float = 10.0) -> Process:
    """Memory in MB."""
    sizes = (int(resident * MB), int(anonymous * MB), int(resident * MB))
    return Process(pid, 0, kind, *sizes)


@pytest.fixture
def samples():
    """A run of 40 rounds with two samples a round, in which one of two runners grows.

    The second sample of a round is at work and takes more. The gateway dies in round 30.
    """

    def at(number: int, more: float) -> Sample:
        processes = [
            process(1, "superlink", 100 + more),
            process(2, "runner", 200 + more),
            process(3, "runner", 200 + more + (number - 20), 10 + (number - 20) / 18),
            process(4 if number < 30 else 5, "gateway", 50),
        ]
        return Sample(float(number), number, processes, number * MB)

    return [at(number, more) for number in range(1, 41) for more in (0.0, 0.0, 40.0)]


def test_growth_is_from_where_it_has_settled_to_the_end_of_the_worst_process(samples):
    superlink, runner = growths(samples, settled=20)
    # Medians of the rounds 20 to 24 and 36 to 40: of the middle ones, and of quiet samples.
    assert superlink == Growth("superlink", 1, (100 * MB, 100 * MB), (10 * MB, 10 * MB), 0.0, 0.0)
    assert (runner.kind, runner.pids) == ("runner", 2)
    assert runner.resident_growth == pytest.approx(100 * (218 / 203 - 1), abs=1.0)
    assert runner.anonymous_growth == pytest.approx(100 * (11 / (10 + 2 / 18) - 1), abs=1.0)
    assert runner.resident[1] == pytest.approx((200 + 218.5) / 2 * MB, rel=0.01)


def test_a_kind_that_was_restarted_meanwhile_has_no_growth(samples):
    assert "gateway" not in [growth.kind for growth in growths(samples, settled=20)]


def test_the_size_at_a_round_is_that_of_the_rounds_from_it_on(samples):
    assert database_at(samples, 20) == 22 * MB
    assert database_at(samples, 40) == 38 * MB  # there are none after it


def test_the_table_tells_memory_growth_and_database(samples):
    text = as_markdown(growths(samples, 20), samples, 20, [20, 40])
    assert "| superlink | 1 | 100.0 | 100.0 | +0.0 % | 10.0 | 10.0 | +0.0 % |" in text
    assert "22.00 MB at round 20, 38.00 MB at round 40; at most 40.00 MB." in text
    assert "40 rounds in 40 s." in text


def test_a_database_is_all_of_its_files(tmp_path):
    (tmp_path / "superlink.db").write_bytes(b"1" * 100)
    (tmp_path / "superlink.db-wal").write_bytes(b"1" * 20)
    (tmp_path / "superlink.db-shm").write_bytes(b"1" * 3)
    (tmp_path / "secret").write_bytes(b"1" * 1000)
    assert database_size(tmp_path / "superlink.db") == 123
    assert database_size(tmp_path / "another.db") == 0


def test_a_sample_between_two_rounds_is_of_the_one_before(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.run.mkdir()
    runner = process(1, "runner", 5)
    monkeypatch.setattr(sampling, "own_processes", lambda: [runner])
    monkeypatch.setattr(sampling, "monotonic", iter([10.0, 12.0, 14.0, 16.0]).__next__)
    recorder = Recorder(SimpleNamespace(folder=folder))
    recorder.take()
    for step in ("alignment 3/8", "centre"):
        folder.progress.write_text(json.dumps({"step": step}))
        recorder.take()
    assert [(sample.seconds, sample.round) for sample in recorder.samples] == [
        (2.0, 0),
        (4.0, 3),
        (6.0, 3),
    ]
    assert recorder.samples[0].processes == [runner]


def test_samples_are_written_with_a_row_a_process(samples, tmp_path):
    write_samples(samples[:2], tmp_path)
    with (tmp_path / "processes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert rows[0] == {
        "seconds": "1.0",
        "round": "1",
        "kind": "superlink",
        "pid": "1",
        "resident": "100000000",
        "anonymous": "10000000",
        "peak": "100000000",
    }
    with (tmp_path / "database.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["seconds", "round", "bytes"],
            ["1.0", "1", "1000000"],
            ["1.0", "1", "1000000"],
        ]


def test_the_picture_is_small(samples, tmp_path):
    plot(samples, 20, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size < 300_000
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > picture.height > 400


def test_growth_has_a_target_and_the_database_is_told_at_its_rounds(samples):
    figures = {
        figure.name: figure for figure in as_figures(growths(samples, 20), samples, 20, [20])
    }
    assert figures["superlink: growth after round 20"].met
    assert figures["runner: growth after round 20"].met is False
    assert figures["database at round 20"].value == 22
