"""The text bank of a simulated study, kept for the next run over the same texts."""

import threading
from pathlib import Path

from hica.study import Study
from hica.text.bank import TextBank
from hica_server.publication import make_bank, text_key

_BANKS: dict[str, TextBank] = {}
"""The last text bank that was made, by all it is made of."""
_ONE_BANK = threading.Lock()


def text_bank(study: Study, dim: int, texts: Path) -> TextBank:
    """The study's text bank, made once: refining its tower takes longer than a small federation.

    It is for a joint space of width `dim`; the corpus lies below the folder `texts`.
    """
    key = f"{text_key(study, texts)} {dim}"
    with _ONE_BANK:  # a resumed run may first need it in the baselines' threads
        if key not in _BANKS:
            _BANKS.clear()  # the next runs are of the same texts, or of others for good
            _BANKS[key] = make_bank(study, dim, texts)
        return _BANKS[key]
