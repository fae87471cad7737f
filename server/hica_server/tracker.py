"""TensorBoard events of a run, written anew from its rounds.

The rounds in the checkpoint are the only history. The same rounds give the same bytes (times are
seconds of the run, not of the clock), so a longer history extends the file: a TensorBoard that
watches it follows along, and a resumed or repeated run leaves no doubled points.
"""

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from hica.errors import StorageError
from hica.storage import replacing

FILE_NAME = "events.out.tfevents.0.hica"  # TensorBoard looks for `tfevents`


def write_events(directory: Path, rounds: Sequence[dict[str, Any]]) -> Path:
    """Bring the run's event file up to its rounds, and return its path.

    `directory` is TensorBoard's log folder, made where missing; other files in it are left alone.
    `rounds` are those of `result.json`, from the first.

    Raises:
        StorageError: The file could not be written.
    """
    path = directory / FILE_NAME
    content = _serialised(rounds)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = path.read_bytes() if path.exists() else b""
        if content.startswith(written):
            with path.open("ab") as file:
                file.write(content[len(written) :])
        else:
            with replacing(path) as part:
                part.write_bytes(content)
    except OSError as error:
        raise StorageError(
            f"{path}: events could not be written: {error.strerror}; "
            "free disk space or choose another folder, then run again"
        ) from None
    return path


def _serialised(rounds: Sequence[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    numbers: Counter[str] = Counter()
    elapsed = 0.0
    for each in rounds:
        stage = str(each["stage"])
        numbers[stage] += 1  # counted here: a stage that is repeated numbers its rounds anew
        elapsed += each.get("seconds") or 0.0
        values = [Summary.Value(tag=f"{stage}/{tag}", simple_value=v) for tag, v in _scalars(each)]
        event = Event(wall_time=elapsed, step=numbers[stage], summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return buffer.getvalue()


def _scalars(entry: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Tag below the stage and value of everything measured in a round."""
    for key in ("loss", "seconds", "bytes_up", "bytes_down"):
        if _is_number(entry.get(key)):
            yield key, float(entry[key])
    for key in ("site_loss", "accuracy"):
        for site, value in (entry.get(key) or {}).items():
            if _is_number(value):
                yield f"{key}/{site}", float(value)
    yield "participants", float(len(entry.get("participants") or ()))


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)
