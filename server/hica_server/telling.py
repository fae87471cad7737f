"""The end of a study is told: to every site that took part, for a time, and nobody has to answer.

Every site that is there is asked, also one that was told at an earlier start: it may have lost its
result since. One that is away, or that has died before it answered, is asked when it is back. One
that refuses has not been told: it is asked again when it has connected anew, or at the next start.
Without them the run ends just as well.
"""

import logging
import time
from collections.abc import Callable

from flwr.serverapp import Grid

from hica.printable import listed
from hica.wire.messages import Request
from hica_server.exchange import POLL_SECONDS, Check, Limits, Outcome, exchange
from hica_server.participants import Participants

logger = logging.getLogger("hica.server")


def tell(
    grid: Grid,
    sites: Participants,
    request: Request,
    check: Check,
    deadline: float,
    told: list[str],
    seconds: float,
    note: Callable[[Outcome], None],
) -> None:
    """Ask every site: at once, and until `seconds` are over who is away and was not told yet.

    Where all were told before, somebody has lost what it was told: then all are waited for. Who is
    connected and refuses is not. An exchange waits up to `deadline` seconds for its answers, and
    `note` is called with it. `told` grows by the sites that answer.
    """
    nobody = Limits(quorum=0, deadline=deadline, retries=0)
    ends = time.monotonic() + seconds
    answered: set[str] = set()
    refused: dict[int, str] = {}
    before = set(told)
    while True:
        able, wanted = sites.able(request.kind, None, nobody)
        present = set(grid.get_node_ids())
        refused = {node: site for node, site in refused.items() if node in present}
        asked = {
            node: site
            for node, site in able.items()
            if node in present and node not in refused and site not in answered
        }
        if asked:
            outcome = exchange(grid, asked, request, {}, nobody, check)
            answered |= outcome.replies.keys()
            told += [site for site in outcome.replies if site not in told]
            refused |= {node: site for node, site in asked.items() if site in outcome.refused}
            note(outcome)
        untold = [site for site in wanted if site not in told]
        absent = wanted if before.issuperset(wanted) else untold
        if not set(absent) - answered - set(refused.values()) or time.monotonic() >= ends:
            break
        time.sleep(POLL_SECONDS)
    if untold:
        logger.warning(
            "%s: not told that the study is over; once they are back, or what they said is "
            "mended, run the same command with --tell SECONDS",
            listed(untold),
        )
