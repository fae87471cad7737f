"""Sites and a coordinator of one secure sum, in memory."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hica.deployment.keys import PublicKey, parse_public
from hica.errors import MessageError
from hica.secure_sum.collector import Collector
from hica.secure_sum.group import Threshold
from hica.secure_sum.party import Party
from hica.secure_sum.quantise import Range, quantise, restore
from hica.secure_sum.wire import Deal, SignedKeys, Unmasking

STUDY = "5" * 64
SESSION = "ab" * 16
QUESTION = "7" * 64
RANGES = {"weights": Range(8.0, 32), "sums": Range(2.0**20, 64)}
NAMES = ("north", "east", "south", "west", "centre", "far", "near")


def new_key() -> tuple[ec.EllipticCurvePrivateKey, PublicKey]:
    """A site's registered pair."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(ec.SECP384R1())
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return key, parse_public(line, "test")


KEYS = {name: new_key() for name in NAMES}
"""Made once: they are slow to make."""


class Table:
    """All parties of a session and their coordinator, taken step by step.

    Attributes:
        parties: By name.
        collector: The coordinator's side.
        values: What each site holds.
        gone: Sites that have dropped out.
    """

    def __init__(self, sites: int, share: float = 2 / 3, session: str = SESSION) -> None:
        self.names = sorted(NAMES[:sites])
        self.registered = {name: KEYS[name][1] for name in NAMES[:sites]}
        self.terms = Threshold(share)
        self.session = session
        self.parties = {name: self.party(name) for name in self.names}
        self.collector = Collector(STUDY, session, self.terms, QUESTION)
        draws = np.random.default_rng(sites)
        self.values = {
            name: {
                "weights": draws.normal(size=(7, 3)).astype(np.float32),
                "sums": draws.normal(scale=1000.0, size=11),
            }
            for name in self.names
        }
        self.gone: set[str] = set()
        self.questions = dict.fromkeys(self.names, QUESTION)

    def party(self, name: str, **changes) -> Party:
        """A site as it would join this session."""
        told = {"registered": self.registered, "study": STUDY, "session": self.session, **changes}
        return Party(
            name, KEYS[name][0], told["registered"], told["study"], told["session"], self.terms
        )

    @property
    def here(self) -> list[str]:
        """Sites that have not dropped out."""
        return [name for name in self.names if name not in self.gone]

    def lose(self, names: Collection[str]) -> None:
        self.gone |= set(names)

    def keys(self) -> list[SignedKeys]:
        """Exchange 0."""
        self.signed = [self.parties[name].offer() for name in self.here]
        self.collector.form_group(self.signed)
        return self.signed

    def deal(self) -> dict[str, Deal]:
        """Exchange 1."""
        self.deals = {name: self.parties[name].deal(self.signed) for name in self.here}
        for name, deal in self.deals.items():
            self.collector.check_deal(name, deal, self.registered[name])
        self.sealed = self.collector.take_deals(self.deals)
        return self.deals

    def integers(self, name: str) -> dict[str, np.ndarray]:
        """A site's values, not yet masked."""
        sites = len(self.parties[name].group.keys)
        return {n: quantise(v, RANGES[n], sites) for n, v in self.values[name].items()}

    def mask(self) -> dict[str, dict[str, np.ndarray]]:
        """Exchange 2."""
        self.masked = {}
        for name in self.here:
            self.parties[name].receive(self.sealed[name], self.collector.promises)
            self.masked[name] = self.integers(name)
            self.parties[name].mask(self.masked[name], self.questions[name])
            self.collector.add(name, self.masked[name])
        self.survivors = self.collector.survivors
        return self.masked

    def sign(self) -> dict[str, bytes]:
        """Exchange 3."""
        self.signatures = {name: self.parties[name].sign(self.survivors) for name in self.here}
        return self.signatures

    def unmask(self) -> dict[str, Unmasking]:
        """Exchange 4."""
        self.shares = {
            name: self.parties[name].unmask(self.survivors, self.signatures) for name in self.here
        }
        for name, each in self.shares.items():
            self.collector.check_unmasking(name, each)
        return self.shares

    def total(self) -> dict[str, np.ndarray]:
        """The end."""
        totals = self.collector.total(self.shares)
        sites = len(self.collector.group.keys)
        return {name: restore(total, RANGES[name], sites) for name, total in totals.items()}

    STEPS = ("keys", "deal", "mask", "sign", "unmask", "total")

    def until(self, step: str) -> "Table":
        """Take all steps before this one."""
        for each in self.STEPS[: self.STEPS.index(step)]:
            getattr(self, each)()
        return self

    def run_until_unmasked(self, lost: Mapping[str, Collection[str]] | None = None) -> "Table":
        """All but the last step."""
        for each in self.STEPS[:-1]:
            self.lose((lost or {}).get(each, ()))
            getattr(self, each)()
        return self

    def run(self, lost: Mapping[str, Collection[str]] | None = None) -> dict[str, np.ndarray]:
        """The whole session; `lost` names those that drop out before a step."""
        for each in self.STEPS:
            self.lose((lost or {}).get(each, ()))
            result = getattr(self, each)()
        return result

    def plain(self) -> dict[str, np.ndarray]:
        """What the sum should be."""
        return {
            name: np.sum([self.values[s][name].astype(np.float64) for s in self.survivors], axis=0)
            for name in RANGES
        }

    def bound(self, name: str) -> float:
        """Largest error of an entry: half a step for each site, and float64's own rounding."""
        sites = len(self.collector.group.keys)
        return len(self.survivors) * RANGES[name].step(sites) / 2 + 1e-12


@pytest.fixture
def table() -> Callable[..., Table]:
    """`table(sites, share=…)`."""
    return Table


@pytest.fixture
def refused() -> Callable:
    """`refused(words)`: a block that a MessageError ends which says these words."""
    return lambda words: pytest.raises(MessageError, match=words)
