import logging
from io import StringIO

import pytest
from rich.console import Console

from hica.printable import (
    LONGEST_LINE,
    MOST_LINES,
    PlainFormatter,
    listed,
    one_line,
    plain,
    printable,
    size_words,
)


def test_markup_and_what_steers_a_terminal_are_shown_not_obeyed():
    out = StringIO()
    Console(file=out, width=80).print(printable("[bold]a\x1b[2J\tb\nc[/]"), highlight=False)
    assert out.getvalue() == "[bold]a�[2J�b\nc[/]\n"


def test_plain_text_keeps_its_lines_and_its_brackets():
    assert plain("[a]\x1b\x07\u202e\x85é\nb") == "[a]����é\nb"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", "a\\nb"),
        ("a\r\x0b\u2028b", "a���b"),
        ("x" * LONGEST_LINE, "x" * LONGEST_LINE),
        ("x" * (LONGEST_LINE + 7), "x" * LONGEST_LINE + " … (7 characters more)"),
    ],
)
def test_one_line(text, line):
    assert one_line(text) == line


def test_the_first_names_and_how_many_more():
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"


@pytest.fixture
def log():
    """A logger, and what it has written so far."""
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("hica.test_printable")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, out
    logger.removeHandler(handler)
    logger.propagate = True


def test_a_record_is_one_line_whatever_it_says(log):
    logger, out = log
    logger.warning("%s refused: %s", "b\x1b[2J", "one\nERROR two")
    assert out.getvalue() == "WARNING hica.test_printable: b�[2J refused: one\\nERROR two\n"


def test_a_traceback_is_set_in_line_by_line(log):
    logger, out = log
    try:
        raise RuntimeError("one\nERROR two\x1b" + "x" * 10_000)
    except RuntimeError:
        logger.exception("no", stack_info=True)
    first, *others = out.getvalue().splitlines()
    assert first == "ERROR hica.test_printable: no"
    assert others and all(line.startswith("    ") for line in others)
    assert "    ERROR two�x" in out.getvalue()
    assert max(map(len, others)) < LONGEST_LINE + 50


def test_of_a_long_traceback_the_end_is_kept(log):
    logger, out = log
    try:
        raise RuntimeError("\n".join(map(str, range(1000))))
    except RuntimeError:
        logger.exception("no")
    lines = out.getvalue().splitlines()
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == "    999"


def test_what_another_formatter_has_kept_of_a_traceback_is_not_used(log):
    logger, out = log
    try:
        raise RuntimeError("a\x1bb")
    except RuntimeError as error:
        record = logger.makeRecord(
            "n", 40, "f", 1, "no", (), (type(error), error, error.__traceback__)
        )
    record.exc_text = "ERROR forged\x1b"
    logger.handle(record)
    assert "forged" not in out.getvalue() and "a�b" in out.getvalue()


def test_times_are_those_of_the_format():
    formatter = PlainFormatter("%(asctime)s %(message)s", datefmt="%Y")
    record = logging.LogRecord("n", 20, "f", 1, "m", (), None)
    assert formatter.format(record)[4:] == " m"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (12, "12 bytes"),
        (1234, "1.23 kB"),
        (5.67e6, "5.67 MB"),
        (999.9e6, "1000 MB"),
        (8e9, "8 GB"),
        (1.5e12, "1.5 TB"),
    ],
)
def test_bytes_are_told_in_a_unit_that_fits(size, words):
    assert size_words(size) == words
