"""Reports to targets, by a tower that counts words."""

import pytest
import torch
from tests.unit.hica.reports.words import Words

from hica.reports.assignment import Finding, _shares
from hica.reports.targets import EMPTY, NOT_ENGLISH, State, read_reports

FINDINGS = [Finding("effusion", ("effusion",)), Finding("nodule", ("lump", "nodule"))]


def test_four_states_are_told_apart():
    reports = [
        "Small effusion. No nodule.",
        "Possible nodule.",
        "The heart is enlarged.",
        "Normal chest.",
        None,
        "Kein Pneumothorax, kein Pleuraerguss, das Herz ist nicht verbreitert.",
    ]
    found = read_reports(Words(), reports, FINDINGS)
    assert found.states.tolist() == [
        [State.MENTIONED, State.DENIED],
        [State.NOT_MENTIONED, State.UNCERTAIN],
        [State.NOT_MENTIONED] * 2,
        [State.DENIED] * 2,
        [State.NOT_MENTIONED] * 2,
        [State.NOT_MENTIONED] * 2,
    ]
    assert found.unread == {4: EMPTY, 5: NOT_ENGLISH}
    assert found.values[0, 0] > 0.9 and found.values[0, 1] < 0.1


def test_what_is_said_beats_what_is_denied():
    found = read_reports(Words(), ["No large effusion. Small effusion."], FINDINGS)
    assert found.states[0, 0] == State.MENTIONED


def test_a_phrase_is_embedded_once_and_no_word_is_printed():
    tower = Words()
    found = read_reports(tower, ["Small effusion of Jane Roe."] * 50, FINDINGS)
    assert tower.seen.count("Small effusion of Jane Roe") == 1
    assert "Jane" not in repr(found)


def test_shares_against_loops():
    cosine = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    found = _shares(cosine, torch.tensor([0, 1, 1]), 2)  # texts of two findings, two of background
    for row, own in enumerate(cosine.tolist()):
        odds = [2.718281828459045 ** (value / 0.1) for value in own]
        near = [odds[0], max(odds[1:3])]
        for finding in (0, 1):
            mean = (near[1 - finding] + odds[3] + odds[4]) / 3
            expected = near[finding] / (near[finding] + 20 * mean)
            assert found[row, finding].item() == pytest.approx(expected, rel=1e-5)
