"""What a secure sum costs beside a plain one: all computing of all sites and of the coordinator.

In one process and without messages, so that nothing else is in it. The plain way is what it stands
in for: every site's change of its weights, and their weighted sum. Of 20 sites in a real federation
each computes its own part at the same time; one part is given in seconds.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from numpy.typing import NDArray

from hica.deployment.keys import PublicKey, parse_public
from hica.secure_sum.collector import Collector
from hica.secure_sum.group import Threshold
from hica.secure_sum.party import Party
from hica.secure_sum.quantise import Integers, Range, quantise, restore
from hica.secure_sum.wire import Promise
from hica_simulations.experiments.benchmarks.timing import Figure, alternate, clock, ratio

SITES, COORDINATOR = "sites", "coordinator"
SHARE = 2 / 3
RANGE = Range(8.0, 32)
STUDY, SESSION, QUESTION = "0" * 64, "0" * 32, "0" * 64
SIZES = ((5, 300_000), (5, 3_000_000), (20, 300_000), (20, 3_000_000))
"""Sites and weights of an update: adapters and a last block, as studies here train them."""


@dataclass
class Federation:
    """Some sites with registered keys and an update of so many weights.

    All sites have the same update, which takes as long as different ones.
    """

    sites: int
    weights: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Where the last secure sum spent them: all sites together, and the coordinator."""

    def __post_init__(self) -> None:
        draws = np.random.default_rng(0)
        self.sent = draws.normal(size=self.weights).astype(np.float32)
        self.trained = self.sent + draws.normal(scale=1e-3, size=self.weights).astype(np.float32)
        self.keys = {f"site {number:02}": _new_key() for number in range(self.sites)}

    def plain(self) -> NDArray[np.float64]:
        """Changes and their weighted sum, in float64."""
        total = np.zeros(self.weights)
        for _ in self.keys:
            total += 0.5 * (self.trained.astype(np.float64) - self.sent)
        return total

    def secure(self, lost: int = 0) -> NDArray[np.float64]:
        """The sum by a session of the protocol, in which `lost` sites do not send their numbers.

        Raises:
            MessageError: Too many sites are lost.
        """
        self.seconds = {SITES: 0.0, COORDINATOR: 0.0}
        terms = Threshold(SHARE)
        collector = Collector(STUDY, SESSION, terms, QUESTION)
        registered = {name: public for name, (_, public) in self.keys.items()}
        with self._noting(SITES):
            parties = {
                name: Party(name, key, registered, STUDY, SESSION, terms)
                for name, (key, _) in self.keys.items()
            }
            keys = [party.offer() for party in parties.values()]
        with self._noting(COORDINATOR):
            collector.form_group(keys)
        with self._noting(SITES):
            deals = {name: party.deal(keys) for name, party in parties.items()}
        with self._noting(COORDINATOR):
            sealed = collector.take_deals(deals)
        staying = dict(list(parties.items())[lost:])
        for name, party in staying.items():
            with self._noting(SITES):
                masked = self._masked(party, sealed[name], collector.promises)
            with self._noting(COORDINATOR):
                collector.add(name, {"weights": masked})
        names = list(staying)
        with self._noting(SITES):
            signed = {name: party.sign(names) for name, party in staying.items()}
            shares = {name: party.unmask(names, signed) for name, party in staying.items()}
        with self._noting(COORDINATOR):
            totals = collector.total(shares)
            return restore(totals["weights"], RANGE, self.sites)

    def _masked(
        self, party: Party, sealed: dict[str, bytes], promises: dict[str, Promise]
    ) -> Integers:
        """A site's change as masked integers."""
        party.receive(sealed, promises)
        integers = quantise(0.5 * (self.trained.astype(np.float64) - self.sent), RANGE, self.sites)
        party.mask({"weights": integers}, QUESTION)
        return integers

    @contextmanager
    def _noting(self, who: str) -> Iterator[None]:
        """Add the seconds of a block to whose work it was."""
        started = time.perf_counter()
        yield
        self.seconds[who] += time.perf_counter() - started


def compare_secure_sum(repeat: int, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Figure]:
    """Secure over plain sum, and what one site and the coordinator have to do.

    A comparison is made for each of `sizes`, sites and weights.
    """
    return [figure for size in sizes for figure in _compare(*size, repeat)]


def _compare(sites: int, weights: int, repeat: int) -> list[Figure]:
    federation = Federation(sites, weights)
    spent: dict[int, list[dict[str, float]]] = {0: [], 1: []}  # by the number of lost sites

    def secure(lost: int) -> float:
        took = clock(partial(federation.secure, lost))
        spent[lost].append(federation.seconds)
        return took

    def seconds(lost: int, who: str) -> float:
        return median(each[who] for each in spent[lost][-repeat:])

    plain = partial(clock, federation.plain)
    ways = {"plain": plain, "secure": partial(secure, 0), "lost": partial(secure, 1)}
    taken = alternate(ways, repeat)
    name = f"{sites} sites, {weights / 1e6:g} M weights"
    return [
        Figure(f"{name}: secure / plain", ratio(taken["secure"], taken["plain"]), "×"),
        Figure(f"{name}: a site", seconds(0, SITES) / sites, "s"),
        Figure(f"{name}: coordinator", seconds(0, COORDINATOR), "s"),
        Figure(f"{name}: coordinator, a site lost", seconds(1, COORDINATOR), "s"),
    ]


def _new_key() -> tuple[ec.EllipticCurvePrivateKey, PublicKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return key, parse_public(line, "benchmark")
