import hashlib
import json

import pytest

from hica.errors import DataError, StorageError
from hica_client import chain
from hica_client.audit import Event, append, verify
from hica_client.chain import FIRST

SENT = Event(
    "message",
    "sent",
    kind="train.align",
    round=3,
    study="ab" * 32,
    run_id=2**63 + 7,
    examples=8,
    bytes=1234,
    arrays={"shared.bank.classes": [[2, 128], "float32", "cd" * 32]},
    details=["loss"],
    header="ef" * 32,
)
REFUSED = Event("message", "refused", reason="study 0123 is not approved\nhere", kind="train.align")


@pytest.fixture
def log(tmp_path):
    """A log of four entries."""
    path = tmp_path / "state" / "audit.jsonl"
    for event in (SENT, REFUSED, SENT, SENT):
        append(path, event)
    return path


def change(log, number, **fields):
    """Write other values into line `number`, as with an editor."""
    lines = log.read_text().splitlines()
    lines[number - 1] = json.dumps(
        {**json.loads(lines[number - 1]), **fields}, sort_keys=True, separators=(",", ":")
    )
    log.write_text("\n".join(lines) + "\n")


def resealed(entry):
    """An entry with the hash that belongs to it, as somebody who knows the program would write."""
    body = {name: value for name, value in entry.items() if name != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return {**body, "hash": hashlib.sha256(text.encode()).hexdigest()}


def written(entries):
    lines = (json.dumps(entry, sort_keys=True, separators=(",", ":")) for entry in entries)
    return "".join(f"{line}\n" for line in lines)


def test_nothing_was_logged(tmp_path):
    assert verify(tmp_path / "audit.jsonl") == []


def test_entries_hold_the_event_and_follow_each_other(log):
    entries = verify(log)
    assert [entry["n"] for entry in entries] == [1, 2, 3, 4]
    assert entries[0]["previous"] == FIRST
    assert [entry["previous"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:-1]]
    assert {name: entries[0][name] for name in vars(SENT)} == vars(SENT)
    assert entries[1]["reason"] == REFUSED.reason
    assert all(entry["time"].endswith("+00:00") for entry in entries)


def test_the_hash_can_be_computed_without_this_program(log):
    for line in log.read_text().splitlines():
        assert json.loads(line) == resealed(json.loads(line))


def test_append_tells_the_hash_that_the_head_holds(log):
    written = append(log, SENT)
    assert verify(log)[-1]["hash"] == written
    assert json.loads(log.with_suffix(".head").read_text())["hash"] == written


CHANGES = {
    "n": 7,
    "time": "2020-01-01T00:00:00.000+00:00",
    "previous": "0" * 64,
    "hash": "0" * 64,
    "event": "application",
    "decision": "refused",
    "reason": "another",
    "kind": "train.moments",
    "round": 4,
    "study": "00" * 32,
    "run_id": 1,
    "examples": 9,
    "bytes": 1,
    "arrays": {},
    "details": [],
    "header": "00" * 32,
}


@pytest.mark.parametrize(("name", "value"), [*CHANGES.items(), ("added", 1)])
def test_a_change_of_any_field_is_found_at_its_line(log, name, value):
    change(log, 3, **{name: value})
    with pytest.raises(DataError, match=rf"{log.name}: line 3: was changed.*backup"):
        verify(log)


def test_no_field_is_left_out_of_those_tried(log):
    assert CHANGES.keys() == verify(log)[0].keys()


def test_a_field_taken_out_is_found(log):
    entries = verify(log)
    del entries[1]["reason"]
    log.write_text(written(entries))
    with pytest.raises(DataError, match="line 2: was changed"):
        verify(log)


@pytest.mark.parametrize(
    ("old", "new"),
    [("}\n", "}\r\n"), (",", ", "), ('":', '": '), ('{"arrays"', '{"n":9,"arrays"')],
)
def test_the_same_values_written_otherwise_are_a_change(log, old, new):
    lines = log.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new)
    log.write_bytes("".join(lines).encode())
    with pytest.raises(DataError, match="line 3: was changed"):
        verify(log)


def test_an_entry_changed_with_its_hash_breaks_the_chain_behind_it(log):
    entries = verify(log)
    entries[1] = resealed({**entries[1], "reason": "another"})
    log.write_text(written(entries))
    with pytest.raises(DataError, match="line 3: is entry 3 and does not follow the line before"):
        verify(log)


def test_an_entry_numbered_anew_with_its_hash_is_found(log):
    entries = verify(log)
    log.write_text(written([resealed({**entries[0], "n": 5})]))
    with pytest.raises(DataError, match="line 1: is entry 5 and does not follow"):
        verify(log)


def test_the_last_entry_changed_with_its_hash_is_not_the_one_of_the_head(log):
    entries = verify(log)
    entries[-1] = resealed({**entries[-1], "bytes": 1})
    log.write_text(written(entries))
    with pytest.raises(DataError, match=r"line 4: has another hash than audit\.head noted"):
        verify(log)


def test_a_line_taken_out_put_in_or_moved_is_found(log):
    lines = log.read_text().splitlines(keepends=True)
    for tampered, first in (
        (lines[:1] + lines[2:], 2),
        (lines[1:], 1),
        ([*lines[:2], lines[0], *lines[2:]], 3),
        ([lines[0], lines[2], lines[1], lines[3]], 2),
        ([*lines[:2], "\n", *lines[2:]], 3),
        ([*lines[:2], "[1]\n", *lines[2:]], 3),
    ):
        log.write_text("".join(tampered))
        with pytest.raises(DataError, match=rf"line {first}: "):
            verify(log)


def test_a_log_cut_short_is_found_by_reader_and_writer(log):
    text = log.read_bytes()
    lines = text.splitlines(keepends=True)
    for cut in (b"".join(lines[:-1]), b"".join(lines[:1]), b"", text[:-1], text[:-20]):
        log.write_bytes(cut)
        with pytest.raises(DataError, match="4 were written: cut short"):
            verify(log)
        with pytest.raises(DataError, match=r"its 4 entries had \d+: cut short"):
            append(log, SENT)
        assert log.read_bytes() == cut  # nothing may be healed that was once acknowledged


def test_a_log_that_is_gone_is_found(log):
    log.unlink()
    with pytest.raises(DataError, match="ends after entry 0, but 4 were written"):
        verify(log)
    with pytest.raises(DataError, match="cut short"):
        append(log, SENT)


def test_a_head_that_is_gone_or_damaged_is_found(log):
    head = log.with_suffix(".head")
    for text in (b"", b"{}\n", b"[]\n", b'{"n": "x", "hash": "", "size": 0}\n', b"\xff\n"):
        head.write_bytes(text)
        for act in (verify, lambda path: append(path, SENT)):
            with pytest.raises(DataError, match=r"audit\.head: is not what was written there"):
                act(log)
    head.unlink()
    for act in (verify, lambda path: append(path, SENT)):
        with pytest.raises(DataError, match=r"audit\.head: missing beside a log"):
            act(log)


@pytest.mark.parametrize("torn", [b'{"arrays":{"shared', b"{", b"\x00\x00"])
def test_a_torn_tail_after_the_head_is_passed_over_and_healed(log, torn):
    before = verify(log)
    with log.open("ab") as file:
        file.write(torn)
    assert verify(log) == before
    append(log, REFUSED)
    assert [entry["decision"] for entry in verify(log)] == [
        *(entry["decision"] for entry in before),
        "refused",
    ]


def test_a_crash_between_log_and_head_leaves_the_entry_in_place(log):
    head = log.with_suffix(".head")
    old = head.read_bytes()
    append(log, REFUSED)
    append(log, SENT)
    head.write_bytes(old)
    assert [entry["n"] for entry in verify(log)] == [1, 2, 3, 4, 5, 6]
    append(log, SENT)
    assert [entry["n"] for entry in verify(log)] == [1, 2, 3, 4, 5, 6, 7]


def test_what_somebody_else_adds_behind_the_head_is_not_adopted(log):
    with log.open("ab") as file:
        file.write(b'{"n":5}\n')
    for act in (verify, lambda path: append(path, SENT)):
        with pytest.raises(DataError, match="line 5: was changed"):
            act(log)


def test_a_crash_in_the_very_first_entry_is_healed(tmp_path, monkeypatch):
    log = tmp_path / "audit.jsonl"

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chain, "append_line", crash)
        with pytest.raises(KeyboardInterrupt):
            append(log, SENT)
    log.write_bytes(b'{"arr')
    assert verify(log) == []
    append(log, SENT)
    assert len(verify(log)) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "state").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match=r"audit\.jsonl: cannot be written"):
        append(tmp_path / "state" / "audit.jsonl", SENT)


def test_a_head_that_cannot_be_written_is_no_success(log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chain, "write_head", full)
        with pytest.raises(StorageError, match="No space left on device"):
            append(log, SENT)
    append(log, SENT)
    assert [entry["n"] for entry in verify(log)] == [1, 2, 3, 4, 5, 6]
