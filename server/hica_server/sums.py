"""Sums over sites: all that a step of the method needs of what the sites hold.

Made from single answers, or by `secure_exchange` without there being any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hica.errors import FederationError, MessageError
from hica.wire.messages import Arrays, Kind, Reply
from hica_server.exchange import Check, Outcome

ALL_SITES = "all sites"


@dataclass(frozen=True)
class Sums:
    """What the sites' answers add up to.

    Attributes:
        arrays: Name → Σ over sites; of an update under secure aggregation, of weighted changes.
        examples: Σ of examples.
        loss: Σ over examples; 0 where nothing was trained.
        outcome: Who took part; under secure aggregation its replies hold no arrays.
    """

    arrays: Arrays
    examples: float
    loss: float
    outcome: Outcome


def plain_sums(outcome: Outcome) -> Sums:
    """The sums of single answers."""
    replies = list(outcome.replies.values())
    arrays = {
        name: np.sum([reply.arrays[name] for reply in replies], axis=0)
        for name in replies[0].arrays
    }
    return Sums(arrays, float(sum(reply.examples for reply in replies)), 0.0, outcome)


def check_sums(sums: Sums, kind: Kind, round_: int, check: Check) -> None:
    """Apply a check of single answers to their sum, where nobody sees the single ones.

    Raises:
        FederationError: No sum of right answers is like that.
    """
    examples = round(sums.examples)
    try:
        check(Reply(kind, ALL_SITES, round_, examples, arrays=sums.arrays))
    except MessageError as error:
        raise FederationError(
            f"{kind} round {round_}: the secure sum over {', '.join(sums.outcome.replies)} cannot "
            f"be right: {error}. One of these sites has sent wrong numbers; which one, only they "
            "can find out, in their own logs. The state is on disk: run the same command again "
            "once it is mended or revoked"
        ) from None
