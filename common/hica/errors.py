"""One exception family for everything a user can put right, and the list of exit codes.

Every message names the file or field at fault and the remedy; command lines print it without a
traceback and exit with `exit_code`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


class HicaError(Exception):
    """A condition the user can put right; `str(error)` says what and how."""

    exit_code = 1
    cause = "fault in the program"
    """In the list of exit codes."""
    proof: Mapping[str, str] | None = None
    """What the coordinator can act on beside the words, with which it leaves: by what another site
    is shown to be at fault, or which sites a sum must be over."""
    places: Sequence[str] = ()
    """All rows or images that it is said of, where it speaks for several."""

    @property
    def outside(self) -> str:
        """What the other side may read of it."""
        return str(self)


class ConfigurationError(HicaError):
    """A study or site file, or an override, that cannot be used."""

    exit_code = 2
    cause = "command line, study or site file"


class DataError(HicaError):
    """A manifest, image, mask or label that cannot be used."""

    exit_code = 3
    cause = "data"


class CheckpointError(HicaError):
    """Weights that are missing, of another hash, or not of the tower's shape."""

    exit_code = 4
    cause = "checkpoint"


class WeightsError(CheckpointError):
    """Weights of a study that are missing here, may not be fetched, or are others than it pins.

    The message is for this machine only: a study names the file, and whoever wrote the study must
    not learn what else lies there, or its hash. The other side reads the same words each time.
    """

    @property
    def outside(self) -> str:
        """The same words for every file."""
        return (
            "the weights here are not those that the study names or pins; why is in the log of "
            "this site, and `hica-client check` says it there"
        )


class MessageError(HicaError):
    """A message from the other side that failed its checks."""

    exit_code = 5
    cause = "message"


class FederationError(HicaError):
    """A round that could not be completed: below quorum after every retry."""

    exit_code = 6
    cause = "federation (below quorum)"


class StorageError(HicaError):
    """A file that could not be written whole (disk full, permission)."""

    exit_code = 7
    cause = "storage (disk full)"


class BudgetError(HicaError):
    """A release that would spend more privacy than the site allows."""

    exit_code = 8
    cause = "privacy budget"


@contextmanager
def gathering(problems: list[HicaError]) -> Iterator[None]:
    """Keep what is raised inside, once however often it is met, and go on after it."""
    try:
        yield
    except HicaError as problem:
        if str(problem) not in map(str, problems):
            problems.append(problem)


FOUND = 9
"""Of commands that look for something: all went well, and it was found."""
INTERRUPTED = 130
"""128 + SIGINT, what a shell reports for a program ended by Ctrl-C."""
NO_READER = 141
"""128 + SIGPIPE, what a shell reports for a program whose reader, such as `head`, has gone."""

_FAMILY: list[type[HicaError]] = [HicaError, *HicaError.__subclasses__()]
_FAULTS = "; ".join(f"{kind.exit_code} {kind.cause}" for kind in _FAMILY)
EXIT_CODES = (
    f"Exit codes: 0 done; {_FAULTS}; {INTERRUPTED} interrupted; {NO_READER} nobody reads on."
)
"""For the help of every command line."""
