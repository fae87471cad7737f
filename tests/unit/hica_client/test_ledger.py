import json
import multiprocessing
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hica.errors import BudgetError, ConfigurationError, DataError, StorageError
from hica.privacy.accountant import Charge, epsilon
from hica_client import chain, journal
from hica_client.ledger import (
    REMEDY,
    Budget,
    Release,
    held,
    merged,
    read_spendings,
    spendings,
    verify,
)
from hica_client.ledger import charge as ledger_charge

DELTA = 1e-5
MUCH = 1e6


def charge(path, each, most, delta, **options):
    """Charge it, under a site's budget and a study's that is never reached."""
    budget = Budget(max_epsilon=most, delta=delta, study_epsilon=1e9, study_delta=delta)
    return ledger_charge(path, each, budget, **options)


def release(**fields):
    """The answer to an alignment round: ten steps on sampled patients."""
    return Release(
        **{
            "study": "ab" * 32,
            "run_id": 2**63 + 7,
            "round": 3,
            "kind": "train.align",
            "question": "12" * 32,
            "mechanism": "sampled gaussian",
            "unit": "patient",
            "holds": "everyone",
            "noise": "secure",
            "noise_multiplier": 1.7,
            "sampling_rate": 0.26,
            "steps": 10,
            **fields,
        }
    )


PLAIN = release(
    kind="train.moments", mechanism="gaussian", noise_multiplier=4.0, sampling_rate=1.0, steps=1
)
OTHER = release(study="cd" * 32, run_id=9, round=1, noise_multiplier=3.0, sampling_rate=1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.jsonl"


@pytest.fixture
def ledger(path):
    """A ledger of four charges of two studies."""
    for each in (PLAIN, release(), OTHER, release(round=4)):
        charge(path, each, MUCH, DELTA)
    return path


def test_what_was_spent_is_that_of_the_whole_history_at_once(path):
    history = []
    for each in (PLAIN, release(), OTHER, release(round=4), PLAIN):
        history.append(each.charge)
        assert charge(path, each, MUCH, DELTA) == epsilon(history, DELTA)
    entries = verify(path)
    assert len(entries) == 5
    assert epsilon((each.charge for each in spendings(entries)), DELTA) == epsilon(history, DELTA)


def test_an_entry_holds_all_of_the_release(path):
    charge(path, release(), MUCH, DELTA)
    [entry] = verify(path)
    assert {name: entry[name] for name in vars(release())} == vars(release())
    assert entry["event"] == "charge"
    assert entry["time"].endswith("+00:00")


def test_runs_and_studies_on_the_same_patients_add_up(path):
    alone = charge(path, release(), MUCH, DELTA)
    both = charge(path, release(run_id=8), MUCH, DELTA)
    assert both > alone
    assert charge(path, release(study="cd" * 32), MUCH, DELTA) > both


def test_the_head_notes_all_spending_and_the_last_answer(ledger):
    note = json.loads(ledger.with_suffix(".head").read_text())["note"]
    assert note["last"] == ["ab" * 32, 2**63 + 7, 4, "train.align"]
    assert note["time"] == verify(ledger)[-1]["time"]
    assert read_spendings(note["spent"]) == spendings(verify(ledger))
    assert [each["steps"] for each in note["spent"]] == [1, 20, 10]


def test_a_charge_beyond_the_budget_is_refused_and_not_written(path):
    limit = epsilon([release().charge, PLAIN.charge], DELTA)
    charge(path, release(), limit, DELTA)
    charge(path, PLAIN, limit, DELTA)  # reaches it, and does not pass it
    before = path.read_bytes(), path.with_suffix(".head").read_bytes()
    words = r"would bring ε from [\d.]+ to [\d.]+ at δ = 1e-05, beyond policy.max_epsilon = .* site"
    with pytest.raises(BudgetError, match=words) as error:
        charge(path, OTHER, limit, DELTA)
    assert error.value.exit_code == 8
    assert (path.read_bytes(), path.with_suffix(".head").read_bytes()) == before
    with pytest.raises(BudgetError):
        charge(path, release(noise_multiplier=0.0), MUCH, DELTA)
    assert charge(path, OTHER, MUCH, DELTA) > limit


def test_a_smaller_delta_makes_the_same_history_cost_more(ledger):
    past = spendings(verify(ledger))
    limit = epsilon([*(each.charge for each in past), PLAIN.charge], 1e-5)
    with pytest.raises(BudgetError, match="δ = 1e-07"):
        charge(ledger, PLAIN, limit, 1e-7)
    charge(ledger, PLAIN, limit, 1e-5)


def test_without_a_budget_nothing_is_charged(path):
    with pytest.raises(ConfigurationError, match=r"policy\.max_epsilon: is not set.*site file"):
        charge(path, release(), None, DELTA)
    assert not path.exists()


def test_another_unit_does_not_add_up(ledger):
    words = r"is kept by patient, the study's privacy.unit is image: .*privacy.unit = 'patient'"
    with pytest.raises(ConfigurationError, match=words):
        charge(ledger, release(unit="image"), MUCH, DELTA)
    assert len(verify(ledger)) == 4


def test_a_ledger_kept_by_image(path):
    charge(path, release(unit="image"), MUCH, DELTA)
    with pytest.raises(ConfigurationError, match="is kept by image"):
        charge(path, release(), MUCH, DELTA)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier = -1.0"),
        ({"sampling_rate": 0.0}, "sampling_rate = 0.0"),
        ({"steps": 0}, "steps = 0"),
    ],
)
def test_a_release_that_makes_no_sense(fields, words):
    with pytest.raises(ConfigurationError, match=words):
        release(**fields)


def test_it_is_on_disk_before_it_may_leave(path, monkeypatch):
    """Line, then head, each synced, and nothing after the return."""
    sizes = []
    real = os.fsync

    def fsync(number):
        if stat.S_ISREG(os.fstat(number).st_mode):
            sizes.append(os.fstat(number).st_size)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    charge(path, release(), MUCH, DELTA)
    assert sizes[-2:] == [path.stat().st_size, path.with_suffix(".head").stat().st_size]


def test_what_cannot_be_written_is_no_charge(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    charge(path, release(), MUCH, DELTA)
    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", full)
        with pytest.raises(StorageError, match=r"ledger\.jsonl: cannot be written: No space"):
            charge(path, PLAIN, MUCH, DELTA)
    charge(path, PLAIN, MUCH, DELTA)


@pytest.mark.parametrize("torn", [b'{"event":"char', b"{", b"\x00\x00"])
def test_an_unfinished_last_line_is_passed_over(ledger, torn):
    before = verify(ledger)
    with ledger.open("ab") as file:
        file.write(torn)
    assert verify(ledger) == before
    charge(ledger, PLAIN, MUCH, DELTA)
    assert [entry["n"] for entry in verify(ledger)] == [1, 2, 3, 4, 5]


def test_a_line_without_its_head_counts(ledger):
    """A crash between the two: nothing left, but the charge stands."""
    head = ledger.with_suffix(".head")
    old = head.read_bytes()
    charge(ledger, PLAIN, MUCH, DELTA)
    head.write_bytes(old)
    assert len(verify(ledger)) == 5
    history = [each.charge for each in spendings(verify(ledger))]
    assert charge(ledger, PLAIN, MUCH, DELTA) == epsilon([*history, PLAIN.charge], DELTA)


def test_a_changed_or_cut_ledger_stops_with_the_remedy(ledger):
    text = ledger.read_bytes()
    lines = text.splitlines(keepends=True)
    for tampered, words in (
        (text.replace(b'"steps":1,', b'"steps":0,'), "line 1: was changed"),
        (b"".join(lines[1:]), "line 1: is entry 2"),
        (b"".join(lines[:-1]), "cut short"),
        (text[:-1], "cut short"),
        (b"", "cut short"),
    ):
        ledger.write_bytes(tampered)
        with pytest.raises(DataError, match=words) as error:
            verify(ledger)
        assert str(error.value).endswith(REMEDY)
        with pytest.raises(DataError) as error:
            charge(ledger, PLAIN, MUCH, DELTA)
        assert str(error.value).endswith(REMEDY)
        assert ledger.read_bytes() == tampered


def test_a_head_that_notes_another_spending_is_found(ledger):
    """Made with its seal by somebody who knows the program."""
    chain_of = chain.Chain(ledger, REMEDY)
    head = chain_of.read_head()
    note = {**head.note, "spent": head.note["spent"][:1]}
    chain.write_head(chain_of.head_path, chain.Head(head.n, head.hash, head.size, note))
    with pytest.raises(DataError, match=r"ledger\.head: notes another spending than its 4 entries"):
        charge(ledger, PLAIN, MUCH, DELTA)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "charge"}, "line 5: study: Field required"),
        ({**vars(PLAIN), "unit": "pixel"}, "line 5: unit: Input should be 'patient' or 'image'"),
        ({**vars(PLAIN), "steps": -1}, "line 5: steps = -1: give a whole number"),
        ({"event": "repair"}, "line 5: entry: Input should be a valid list"),
    ],
)
def test_an_entry_of_another_program_is_named(ledger, fields, words):
    with held(ledger) as tail:
        tail.append(fields)
    with pytest.raises(DataError, match=words):
        verify(ledger)


def test_a_ledger_replaced_while_a_charge_waits_for_it(ledger, monkeypatch):
    """A repair puts a new file in the place of the one whose lock was waited for."""
    real = chain.Chain._caught_up

    def caught_up(self, file):
        found = real(self, file)
        copy = ledger.with_suffix(".anew")
        copy.write_bytes(ledger.read_bytes())
        copy.replace(ledger)
        return found

    before = ledger.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(chain.Chain, "_caught_up", caught_up)
        with pytest.raises(StorageError, match="was replaced by a repair; try again"):
            charge(ledger, PLAIN, MUCH, DELTA)
    assert ledger.read_bytes() == before
    charge(ledger, PLAIN, MUCH, DELTA)


def test_processes_that_charge_at_once_do_not_pass_the_budget(path):
    limit = epsilon([Charge(4.0, 1.0, 10)], DELTA)
    epsilon([Charge(4.0)], DELTA)  # loads Opacus before the fork
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=charge_until_refused, args=(path, limit)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sum(each.steps for each in spendings(verify(path))) == 10


def charge_until_refused(path, limit):
    while True:
        try:
            charge(path, PLAIN, limit, DELTA)
        except BudgetError:
            return


@given(st.lists(st.sampled_from([PLAIN, release(), OTHER]), max_size=12))
def test_merging_loses_no_step(releases):
    found = merged(releases)
    assert sum(each.steps for each in found) == sum(each.steps for each in releases)
    assert len(found) == len({each.noise_multiplier for each in releases})
    assert epsilon([each.charge for each in found], DELTA) == epsilon(
        [each.charge for each in releases], DELTA
    )


def test_thousands_of_entries_cost_one_divergence_for_each_kind(path, monkeypatch):
    """What is slow, an accountant's pass, is done once for each distinct (σ, q)."""
    from hica.privacy import accountant

    monkeypatch.setattr(chain, "write_head", lambda *_: None)
    with held(path) as tail:
        for number in range(300):
            tail.append({"event": "charge", **vars(release(round=number))})
    monkeypatch.undo()
    chain.write_head(path.with_suffix(".head"), chain.Head())
    accountant._divergences.cache_clear()
    charge(path, OTHER, MUCH, DELTA)
    charge(path, OTHER, MUCH, DELTA)
    assert accountant._divergences.cache_info().misses == 2
