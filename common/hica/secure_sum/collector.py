"""Collector: the coordinator's side of one secure sum, without its messages.

It never holds what would uncover one site: masks are taken off the sum only, as integers.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hica.errors import MessageError
from hica.secure_sum.group import (
    Group,
    Threshold,
    make_group,
    mask_key_purpose,
    pair_purpose,
    self_purpose,
)
from hica.secure_sum.masks import add_mask
from hica.secure_sum.quantise import Integers
from hica.secure_sum.sharing import agreed, combine, commitment, derived, private_key
from hica.secure_sum.wire import Deal, SignedKeys, Unmasking


class Collector:
    """One session at the coordinator, of a study by its SHA-256.

    `terms` say how many sites a sum needs, `question` is the hash of what all of them are asked
    (`hica.secure_sum.forms.question_of`).
    """

    def __init__(self, study: str, session: str, terms: Threshold, question: str) -> None:
        self._question = question
        self._study = study
        self._session = session
        self._terms = terms
        self._group: Group | None = None
        self._deals: dict[str, Deal] = {}
        self._totals: dict[str, Integers] = {}
        self._survivors: list[str] = []

    @property
    def group(self) -> Group:
        """The session's sites, once their keys are in."""
        if self._group is None:
            raise MessageError("no keys yet")
        return self._group

    @property
    def threshold(self) -> int:
        """How many sites must stay."""
        return self.group.threshold

    @property
    def dealers(self) -> list[str]:
        """Sites that have dealt shares."""
        return sorted(self._deals)

    @property
    def survivors(self) -> list[str]:
        """Sites that are in the sum."""
        return sorted(self._survivors)

    def form_group(self, keys: Sequence[SignedKeys]) -> Group:
        """After exchange 0: who takes part.

        Raises:
            MessageError: Too few sites, or one twice.
        """
        self._group = make_group(self._study, self._session, keys, self._terms)
        return self._group

    def check_deal(self, site: str, deal: Deal) -> None:
        """Exchange 1: shares for every other site of the group, and for no one else.

        Raises:
            MessageError: Names the site that has none.
        """
        others = set(self.group.sites) - {site}
        if deal.sealed.keys() != others:
            wrong = sorted(deal.sealed.keys() ^ others)
            raise MessageError(f"shares are missing, or of strangers: {', '.join(wrong)}")

    def take_deals(self, deals: Mapping[str, Deal]) -> dict[str, dict[str, bytes]]:
        """After exchange 1: addressee → dealer → envelope, among those that have dealt."""
        self._deals = dict(sorted(deals.items()))
        return {
            addressee: {
                dealer: deal.sealed[addressee]
                for dealer, deal in self._deals.items()
                if dealer != addressee
            }
            for addressee in self._deals
        }

    def add(self, site: str, masked: Mapping[str, Integers]) -> None:
        """Exchange 2: add a site's masked integers to the sum; they are not kept.

        Raises:
            MessageError: The site has not dealt, or is in the sum already.
        """
        if site not in self._deals or site in self._survivors:
            raise MessageError("not a site whose numbers are still missing in the sum")
        if not self._totals:
            self._totals = {name: np.zeros_like(array) for name, array in masked.items()}
        for name, total in self._totals.items():
            np.add(total, masked[name], out=total)
        self._survivors.append(site)

    def check_unmasking(self, unmasking: Unmasking) -> None:
        """Exchange 4: a share for every site.

        Raises:
            MessageError: Some are missing or not asked for.
        """
        dropouts = set(self.dealers) - set(self._survivors)
        if (
            unmasking.self_masks.keys() != set(self._survivors)
            or unmasking.mask_keys.keys() != dropouts
        ):
            raise MessageError("shares that do not fit who is in the sum")

    def total(self, shares: Mapping[str, Unmasking]) -> dict[str, Integers]:
        """The sum over the survivors, as integers, from what sites have returned in exchange 4.

        Raises:
            MessageError: Too few shares, or wrong ones: there is no sum.
        """
        totals = {name: array.copy() for name, array in self._totals.items()}
        transcript = self.group.transcript
        for site in self.survivors:
            seed = self._combined({s: u.self_masks[site] for s, u in shares.items()})
            purpose = self_purpose(transcript, site)
            if commitment(seed, purpose) != self._deals[site].commitment:
                raise MessageError(_wrong(site))
            add_mask(totals, derived(seed, purpose), -1)
        for dropout in sorted(set(self.dealers) - set(self._survivors)):
            seed = self._combined({s: u.mask_keys[dropout] for s, u in shares.items()})
            key = private_key(seed, mask_key_purpose(self._session, dropout))
            if key.public_key().public_bytes_raw() != self.group.keys[dropout].mask_key:
                raise MessageError(_wrong(dropout))
            for site in self.survivors:
                purpose = pair_purpose(transcript, self._question, site, dropout)
                mask = agreed(key, self.group.keys[site].mask_key, site, purpose)
                add_mask(totals, mask, -1 if site < dropout else 1)
        return totals

    def _combined(self, shares: Mapping[str, bytes]) -> bytes:
        return combine(shares, self.threshold, self.group.sites)


def _wrong(site: str) -> str:
    return (
        f"the shares of {site!r} do not give what it has dealt: one of the sites sends wrong "
        "shares, and the sum cannot be had"
    )
