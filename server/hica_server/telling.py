"""The end of a study is told: to every site that took part, for a time, and nobody has to answer.

A site that has answered is not asked again. One that is away, or that has died before it answered,
is asked when it is back; without it the run ends just as well.
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
    """Ask every site that has not been told: at once, and until `seconds` are over who is away.

    An exchange waits up to `deadline` seconds for its answers, and `note` is called with it. `told`
    grows by the sites that answer; one that refuses will do so again, and has been told, too.
    """
    nobody = Limits(quorum=0, deadline=deadline, retries=0)
    ends = time.monotonic() + seconds
    while True:
        able, wanted = sites.able(request.kind, None, nobody)
        present = set(grid.get_node_ids())
        asked = {n: site for n, site in able.items() if n in present and site not in told}
        if asked:
            outcome = exchange(grid, asked, request, {}, nobody, check)
            told += sorted({*outcome.replies, *outcome.refused})
            note(outcome)
        absent = [site for site in wanted if site not in told]
        if not absent:
            return
        if time.monotonic() >= ends:
            logger.warning(
                "%s: not told that the study is over; once they are back, run the same command "
                "with --tell SECONDS",
                listed(absent),
            )
            return
        time.sleep(POLL_SECONDS)
