"""Nothing that libraries say while images come is printed or logged: it quotes UIDs and values."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("pynetdicom", "pydicom", "httpx", "httpcore", "python_multipart")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep logs, warnings and the tracebacks of pynetdicom's threads to themselves.

    What such a thread fails at is an image that does not come: it is counted and asked for again.
    """
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        threading.excepthook = before
