import pytest

from hica.errors import MessageError
from hica.wire.details import Capabilities, Nothing, Trained

TOLD = {
    "labelled": 4,
    "unlabelled": 6,
    "test": 6,
    "classes": {"a": None, "b": 3},
    "notes": ["fine"],
    "tower": "0" * 64,
    "device": "cpu",
}


def test_what_was_said_is_read_and_nothing_added():
    assert Capabilities.read(TOLD).model_dump(exclude_unset=True) == TOLD
    assert Trained.read({"loss": 0.5}).loss == 0.5
    assert Trained.read({}).loss is None
    assert Nothing.read({}).model_dump() == {}


def test_the_order_is_that_in_which_sites_have_always_told_it():
    told = {**TOLD, "shortfall": [], "versions": {"hica": "0.1.0"}}
    fields = ["labelled", "unlabelled", "test", "classes", "shortfall", "notes", "tower", "device"]
    assert list(Capabilities.read(told).model_dump()) == [*fields, "versions"]


@pytest.mark.parametrize(
    ("model", "table", "words"),
    [
        (Nothing, {"a": 1}, "details: a: Extra inputs are not permitted"),
        (Nothing, {"x" * 500: 1}, "details: " + "x" * 100 + ": Extra"),
        (Trained, {"loss": "low"}, "details: loss: Input should be a valid number"),
        (Trained, {"loss": True}, "details: loss: Input should be a valid number"),
        (Trained, {"loss": float("nan")}, "details: loss: Input should be a finite number"),
        (Trained, {"loss": -1e7}, "details: loss: Input should be greater than or equal to"),
        (Capabilities, {**TOLD, "test": "6"}, "details: test: Input should be a valid integer"),
        (Capabilities, {**TOLD, "test": 2**70}, "details: test: Input should be less than"),
        (Capabilities, {**TOLD, "classes": {"<b>": 1}}, "'<b>': give up to 64 letters"),
        (Capabilities, {**TOLD, "notes": "fine"}, "details: notes: Input should be a valid list"),
    ],
)
def test_everything_else_is_refused_by_field(model, table, words):
    with pytest.raises(MessageError) as refused:
        model.read(table)
    assert words in str(refused.value)


def test_words_are_lines_that_a_terminal_can_show():
    told = Capabilities.read({**TOLD, "notes": ["a\nb\x1b[2J"], "device": "cuda\x07"})
    assert (told.notes, told.device) == (["a b�[2J"], "cuda�")
