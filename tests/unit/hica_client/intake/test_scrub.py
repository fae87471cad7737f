"""Text without what names a person."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hica_client.intake.scrub import REMOVED, scrubbed, words_of


def nobody(_: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Seen on 2024-05-09 and 9.5.24.", "Seen on [removed] and [removed]."),
        ("Prior of 3 May 2023; May 3, 2023.", "Prior of [removed]; [removed]."),
        ("Order AB123456, call 030/5556677.", "Order [removed], call [removed]."),
        ("1.2.840.10008.1 by a.b@c.example", "[removed] by [removed]"),
        ("A mass of 12 x 9 mm, BI-RADS 4.", "A mass of 12 x 9 mm, BI-RADS 4."),
        ("T1-weighted, 3.5 cm, grade 2/3", "T1-weighted, 3.5 cm, grade 2/3"),
        ("one\x00two\x1b[2J\nthree", "one two [2J three"),
    ],
)
def test_dates_numbers_and_addresses_are_removed_and_measures_stay(text, left):
    assert scrubbed(text, nobody) == left


def test_names_in_any_case_and_numbers_as_a_whole_or_in_parts():
    words = words_of(["Müller-Lüdenscheidt^Karl^F"], ["PID-47/11", "7"])
    text = "MÜLLER-LÜDENSCHEIDT, Karl F. (pid-47/11): Müller has 47 cysts, 7 mm."
    left = scrubbed(text, words.__contains__)
    assert left == "[removed], [removed] F. ([removed]): [removed] has 47 cysts, 7 mm."


@settings(max_examples=40)
@given(
    st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyzäöü", min_size=3), min_size=1, max_size=4),
    st.text(alphabet=" .,-/'", max_size=3),
)
def test_no_word_of_a_name_is_left_whatever_stands_around_it(names, between):
    words = words_of(["^".join(names)], [])
    text = f"Of {between.join(name.upper() for name in names)}{between}: a mass"
    left = scrubbed(text, words.__contains__).replace(REMOVED, "").casefold()
    if between:  # glued together they are another word
        assert not [name for name in names if re.search(rf"\b{name.casefold()}\b", left)]


@settings(max_examples=30)
@given(st.text(max_size=60))
def test_what_is_scrubbed_is_one_line_and_can_be_scrubbed_again(text):
    left = scrubbed(text, nobody)
    assert left.isprintable() and scrubbed(left, nobody) == left
