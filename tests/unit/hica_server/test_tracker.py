"""TensorBoard's own reader finds every round once, however often the events are written."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hica.errors import StorageError
from hica_server.tracker import FILE_NAME, write_events


def entry(stage, loss=1.0, **more):
    return {
        "stage": stage,
        "seconds": 2.0,
        "bytes_up": 10,
        "bytes_down": 20,
        "participants": ["a", "b"],
        "loss": loss,
        "site_loss": {} if loss is None else {"a": loss - 0.1, "b": loss + 0.1},
    } | more


def scalars(directory, tag):
    accumulator = EventAccumulator(str(directory)).Reload()
    return [
        (event.step, pytest.approx(event.value, rel=1e-6)) for event in accumulator.Scalars(tag)
    ]


ROUNDS = [
    entry("pretraining", 3.0),
    entry("alignment", 2.0),
    entry("evaluation", None, accuracy={"a": 0.5}),
    entry("alignment", 1.5),
]


def test_scalars_by_stage(tmp_path):
    write_events(tmp_path, ROUNDS)
    assert scalars(tmp_path, "alignment/loss") == [(1, 2.0), (2, 1.5)]
    assert scalars(tmp_path, "pretraining/site_loss/b") == [(1, 3.1)]
    assert scalars(tmp_path, "evaluation/accuracy/a") == [(1, 0.5)]
    assert scalars(tmp_path, "alignment/bytes_down") == [(1, 20), (2, 20)]
    assert scalars(tmp_path, "alignment/seconds") == [(1, 2), (2, 2)]
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert "evaluation/loss" not in tags


def test_writing_round_by_round_equals_writing_at_once(tmp_path):
    for n in range(len(ROUNDS) + 1):
        write_events(tmp_path / "steps", ROUNDS[:n])
    write_events(tmp_path / "once", ROUNDS)
    assert (tmp_path / "steps" / FILE_NAME).read_bytes() == (
        tmp_path / "once" / FILE_NAME
    ).read_bytes()


def test_a_longer_history_extends_the_same_file(tmp_path):
    path = write_events(tmp_path, ROUNDS[:2])
    before = path.stat().st_ino
    write_events(tmp_path, ROUNDS)
    assert path.stat().st_ino == before  # a TensorBoard that has it open reads on
    assert scalars(tmp_path, "alignment/loss") == [(1, 2.0), (2, 1.5)]


@pytest.mark.parametrize("damage", [lambda old: old[:-3], lambda old: b"x" + old, lambda old: b""])
def test_a_damaged_file_is_mended(tmp_path, damage):
    path = write_events(tmp_path, ROUNDS)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    write_events(tmp_path, ROUNDS)
    assert path.read_bytes() == whole


def test_a_resumed_run_forgets_the_rounds_after_its_checkpoint(tmp_path):
    write_events(tmp_path, ROUNDS)
    other = tmp_path / "events.out.tfevents.123.mine"
    other.write_bytes(b"not ours")
    write_events(tmp_path, [*ROUNDS[:1], entry("alignment", 7.0)])
    assert other.read_bytes() == b"not ours"
    other.unlink()
    assert scalars(tmp_path, "alignment/loss") == [(1, 7.0)]


def test_a_loss_that_is_no_number_is_left_out(tmp_path):
    write_events(tmp_path, [entry("alignment", float("nan")), entry("alignment", 1.0)])
    assert scalars(tmp_path, "alignment/loss") == [(2, 1.0)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file.*events could not be written.*free disk space"):
        write_events(tmp_path / "file" / "events", ROUNDS)
