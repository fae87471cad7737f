import numpy as np

from hica.errors import MessageError
from hica.steps.plan import step_kinds
from hica.wire.messages import SECURE_SUM, Kind, SiteError, failure, spec_of


def test_no_step_bears_the_kind_of_another_exchange() -> None:
    assert set(map(str, Kind)).isdisjoint(step_kinds())
    assert set(Kind) == {Kind.CAPABILITIES, *SECURE_SUM}


def test_every_kind_is_a_category_and_an_action_of_flower_s() -> None:
    for kind in [*map(str, Kind), *step_kinds()]:
        category, action = kind.split(".")
        assert category in ("query", "train", "evaluate") and action.isidentifier()


def test_a_failure_says_why_and_of_which_class_the_error_is() -> None:
    reply = failure("train.align", "north", 3, "MessageError: no", MessageError("no"))
    assert (reply.kind, reply.site, reply.round) == ("train.align", "north", 3)
    assert reply.details == {"failed": "MessageError: no", "error": "MessageError"}
    assert reply.arrays == {} and reply.examples == 0


def test_a_failure_at_a_site_names_it() -> None:
    error = SiteError("north", "disk is full", "StorageError")
    assert isinstance(error, MessageError)
    assert str(error) == "failed at the site: disk is full"
    assert (error.site, error.error) == ("north", "StorageError")


def test_a_spec_is_what_the_arrays_themselves_are() -> None:
    arrays = {"a": np.zeros((2, 3), np.float16), "b": np.zeros(4)}
    assert spec_of(arrays) == {"a": ((2, 3), "float16"), "b": ((4,), "float64")}
