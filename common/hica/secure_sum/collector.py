"""Collector: the coordinator's side of one secure sum, without its messages.

It never holds what would uncover one site: masks are taken off the sum only, as integers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hica.deployment.keys import PublicKey
from hica.errors import MessageError
from hica.secure_sum.group import (
    Group,
    Threshold,
    check_promise,
    make_group,
    mask_key_purpose,
    pair_purpose,
    promised,
    self_purpose,
    shares_purpose,
)
from hica.secure_sum.masks import add_mask
from hica.secure_sum.quantise import Integers
from hica.secure_sum.sharing import (
    DIGEST_BYTES,
    agreed,
    combine,
    commitment,
    derived,
    private_key,
    unseal,
)
from hica.secure_sum.wire import (
    KEY_BYTES,
    Deal,
    Promise,
    SignedKeys,
    Unmasking,
    read_hex,
)
from hica.wire.records import read_name


class LiarError(MessageError):
    """Of one site it is shown that it deals wrong shares; the sum has to be made without it."""

    def __init__(self, site: str) -> None:
        super().__init__(f"{site!r} has dealt wrong shares: it is left out of the sum")
        self.site = site


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

    @property
    def promises(self) -> dict[str, Promise]:
        """What every dealer has committed to, for those who have its shares."""
        return {dealer: deal.promise for dealer, deal in self._deals.items()}

    def check_deal(self, site: str, deal: Deal, registered: PublicKey | None = None) -> None:
        """Exchange 1: shares for every other site of the group, and for no one else.

        `registered` is the key of the site, where it is known here: then its signature is checked.

        Raises:
            MessageError: Names the site that has none; or the commitments are not the dealer's.
        """
        others = set(self.group.sites) - {site}
        if deal.sealed.keys() != others:
            wrong = sorted(deal.sealed.keys() ^ others)
            raise MessageError(f"shares are missing, or of strangers: {', '.join(wrong)}")
        if registered is not None:
            check_promise(self.group, site, deal.promise, registered)
        elif len(deal.promise.shares) != len(self.group.keys):
            raise MessageError("commitments are missing, or of strangers")

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

    def check_accusation(self, accuser: str, proof: Mapping[str, Any]) -> None:
        """Exchange 2: a site says that a dealer's shares are others than those it committed to.

        The envelope is opened with the key that the accuser shows. Nobody but the dealer can have
        sealed it, so that no false proof holds (a second key that opens the same envelope is as
        hard to find as a forged one); one that does not open is no proof of anything.

        Raises:
            LiarError: It is so.
        """
        try:
            dealer = read_name(proof.get("dealer"))
            key = read_hex(proof.get("key"), "key", KEY_BYTES)
            sealed = self._deals[dealer].sealed[accuser]
            content = unseal(sealed, key, shares_purpose(self.group.transcript, dealer, accuser))
        except (MessageError, KeyError):
            return
        if promised(self.group.transcript, dealer, accuser, content) != self._committed(
            dealer, accuser
        ):
            raise LiarError(dealer)

    def check_unmasking(self, site: str, unmasking: Unmasking) -> None:
        """Exchange 4: a share for every site, as its dealer has committed to it.

        Raises:
            MessageError: Some are missing, not asked for, or not those the site was dealt.
        """
        dropouts = set(self.dealers) - set(self._survivors)
        if (
            unmasking.self_masks.keys() != set(self._survivors)
            or unmasking.mask_keys.keys() != dropouts
        ):
            raise MessageError("shares that do not fit who is in the sum")
        kinds = (
            (unmasking.self_masks, slice(DIGEST_BYTES)),
            (unmasking.mask_keys, slice(DIGEST_BYTES, None)),
        )
        for shares, part in kinds:
            for dealer, share in shares.items():
                pair = share + share  # of which only the one or the other is looked at
                given = promised(self.group.transcript, dealer, site, pair)[part]
                if given != self._committed(dealer, site)[part]:
                    raise MessageError(
                        f"sends another share than {dealer!r} has dealt to it: its shares are not "
                        "used"
                    )

    def total(self, shares: Mapping[str, Unmasking]) -> dict[str, Integers]:
        """The sum over the survivors, as integers, from what sites have returned in exchange 4.

        All shares are those that were committed to (`check_unmasking`), so that of wrong ones the
        dealer is to blame.

        Raises:
            LiarError: A site has dealt shares that do not give what it has said: there is no sum.
            MessageError: Too few shares.
        """
        totals = {name: array.copy() for name, array in self._totals.items()}
        transcript = self.group.transcript
        for site in self.survivors:
            seed = self._combined({s: u.self_masks[site] for s, u in shares.items()})
            purpose = self_purpose(transcript, site)
            if commitment(seed, purpose) != self._deals[site].promise.commitment:
                raise LiarError(site)
            add_mask(totals, derived(seed, purpose), -1)
        for dropout in sorted(set(self.dealers) - set(self._survivors)):
            seed = self._combined({s: u.mask_keys[dropout] for s, u in shares.items()})
            key = private_key(seed, mask_key_purpose(self._session, dropout))
            if key.public_key().public_bytes_raw() != self.group.keys[dropout].mask_key:
                raise LiarError(dropout)
            for site in self.survivors:
                purpose = pair_purpose(transcript, self._question, site, dropout)
                mask = agreed(key, self.group.keys[site].mask_key, site, purpose)
                add_mask(totals, mask, -1 if site < dropout else 1)
        return totals

    def _combined(self, shares: Mapping[str, bytes]) -> bytes:
        return combine(shares, self.threshold, self.group.sites)

    def _committed(self, dealer: str, holder: str) -> bytes:
        """What a dealer has said of the shares of one site."""
        return self._deals[dealer].promise.shares[self.group.sites.index(holder)]
