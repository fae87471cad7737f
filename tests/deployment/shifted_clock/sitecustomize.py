"""A machine whose clock is wrong: imported by every Python that starts with this on its path.

Both of Python's clocks are moved by HICA_TEST_CLOCK seconds. The interval clocks are right, as
they are on such a machine.
"""

import datetime
import os
import time

OFFSET = float(os.environ["HICA_TEST_CLOCK"])
true_time, true_datetime = time.time, datetime.datetime


class AnyDatetime(type):
    """What C code makes is a datetime, too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, true_datetime)


class ShiftedDatetime(true_datetime, metaclass=AnyDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return true_datetime.now(tz) + datetime.timedelta(seconds=OFFSET)


time.time = lambda: true_time() + OFFSET
datetime.datetime = ShiftedDatetime  # type: ignore[misc]
