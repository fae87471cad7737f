import json

import pytest

from hica.export.card import card_of, cell, write_text

INTERVAL = {"value": 0.8125, "low": 0.7, "high": 0.9}
PRIVATE = (
    "privacy.mechanism=dp-sgd",
    "privacy.epsilon=3.0",
    "privacy.delta=1e-5",
    "calibration.rounds=0",
)


@pytest.fixture
def card(trained, tmp_path):
    """A card as JSON has it, and as text."""

    def made(*overrides: str, **facts: object) -> tuple[dict, str]:
        _, exported = trained("tiny", "full", *overrides)
        exported.facts.update(facts)
        exported.left_out["open_clip"] = "its tower is HiCA's own"
        table = card_of(exported)
        write_text(tmp_path / "model_card.md", table)
        return json.loads(json.dumps(table)), (tmp_path / "model_card.md").read_text()

    return made


def test_data_and_metrics_by_site_with_intervals(card):
    row = {"of": "north", "n": 9, "accuracy": INTERVAL, "balanced_accuracy": INTERVAL}
    _, text = card(
        data={"north": {"labelled": 8, "unlabelled": 12, "test": 9, "classes": {"round": None}}},
        measured=[{**row, "auroc": None}],
    )
    lines = text.splitlines()
    assert "| north | 8 | 12 | 9 | round not told |" in lines
    assert "| north | 9 | 81.2 [70.0, 90.0] | 81.2 [70.0, 90.0] | – | " in lines
    assert "- No `open_clip/`: its tower is HiCA's own." in lines


def test_privacy_has_its_unit_and_accountant(card):
    table, text = card(*PRIVATE)
    assert table["privacy"]["epsilon"] == 3.0 and table["privacy"]["unit"] == "patient"
    assert "mechanism dp-sgd: ε = 3.0, δ = 1e-05, for one\npatient of one hospital" in text
    assert "Accountant: Rényi differential privacy" in text


def test_without_privacy_that_is_said(card):
    table, text = card()
    assert table["privacy"] == {"differential_privacy": False, "secure_aggregation": False}
    assert "**None by differential privacy.**" in text


def test_a_personal_model_has_no_share_in_the_studys_privacy(card):
    table, text = card(*PRIVATE, is_personal=True, warnings=["Nothing protects them."])
    assert not table["privacy"]["differential_privacy"] and "epsilon" not in table["privacy"]
    assert "> **Nothing protects them.**" in text and "ε = 3" not in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("alignment.region_blend=0.25", "the regions of an image count for 25%"),
        ("alignment.region_view=true", "cut to its largest region"),
        ("alignment.centring=site", "the mean of its own features"),
        ("personal.epochs=1", "predicts with this model and two of its own"),
    ],
)
def test_where_forms_differ_from_hica_is_a_limit(card, override, words):
    table, text = card(override)
    (limit,) = [each for each in table["limits"] if words in each]
    assert f"- {limit}" in text


def test_words_from_elsewhere_break_no_table():
    assert cell("a|b\n<script>`x`\x1b[2J") == "a\\|b \\<script\\>\\`x\\`�\\[2J"
