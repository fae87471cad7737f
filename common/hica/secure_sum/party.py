"""Party: a site's side of one secure sum, step by step, each of them once.

The site works out for itself who may be in the sum and how many must stay: from its own list of
registered keys and the study's threshold, never from what the coordinator says.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hica.deployment.keys import PublicKey
from hica.errors import MessageError
from hica.secure_sum.group import (
    SIGNING,
    Group,
    Threshold,
    check_promise,
    is_signed,
    keys_statement,
    make_group,
    mask_key_purpose,
    pair_purpose,
    promise_statement,
    promised,
    self_purpose,
    shares_purpose,
    survivors_statement,
    verified,
)
from hica.secure_sum.masks import add_mask
from hica.secure_sum.quantise import Integers
from hica.secure_sum.sharing import (
    SHARE_BYTES,
    agreed,
    commitment,
    context,
    derived,
    new_seed,
    private_key,
    seal,
    split,
    unseal,
)
from hica.secure_sum.wire import Deal, Promise, SignedKeys, Unmasking


class Step(IntEnum):
    """What a party has done last."""

    MADE = 0
    KEYS = 1
    SHARES = 2
    RECEIVED = 3
    MASKED = 4
    SURVIVORS = 5
    UNMASKED = 6


class DealtWrongError(MessageError):
    """Shares that are not those their dealer has committed to; with what shows it to anyone.

    `key` opens the one envelope that they came in, and no other. Only its sender can have sealed
    it, so that this tells nothing of a site that has dealt rightly.
    """

    def __init__(self, dealer: str, key: bytes) -> None:
        super().__init__(
            f"the shares of {dealer!r} are not those it has committed to: the sum has to be made "
            "without it"
        )
        self.proof = {"dealer": dealer, "key": key.hex()}


class Party:
    """One site in one session; lives in memory only.

    It has the registered private key of its site, and the public keys of all sites of the
    federation, its own included; `study` is the SHA-256 of the study, and `terms` say how many
    sites a sum needs. A step that is refused ends the session for this site, except one that comes
    out of order.

    Raises:
        MessageError: The site is not on its own list, or with another key.
    """

    def __init__(
        self,
        site: str,
        key: ec.EllipticCurvePrivateKey,
        registered: Mapping[str, PublicKey],
        study: str,
        session: str,
        terms: Threshold,
    ) -> None:
        own = registered.get(site)
        if own is None or load_pem_public_key(own.pem) != key.public_key():
            raise MessageError(
                f"{site!r} is not among the registered keys of the start kit with the key it has "
                "here: ask the coordinator for a new start kit"
            )
        self.site = site
        self.step = Step.MADE
        self._key = key
        self._registered = registered
        self._study = study
        self._session = session
        self._terms = terms
        self._mask_seed, share_seed = new_seed(), new_seed()
        self._self_seed = new_seed()
        self._mask_key = private_key(self._mask_seed, mask_key_purpose(session, site))
        self._share_key = private_key(share_seed, context("share key", session, site))
        self._group: Group | None = None
        self._offered: SignedKeys | None = None
        self._own: tuple[bytes, bytes] = (b"", b"")
        self._received: dict[str, tuple[bytes, bytes]] = {}
        self._question = ""
        self._survivors: tuple[str, ...] = ()

    @property
    def group(self) -> Group:
        """The session's sites, known from the second step on.

        Raises:
            MessageError: Not yet.
        """
        if self._group is None:
            raise MessageError("the keys of the other sites have not come yet")
        return self._group

    @property
    def dealers(self) -> list[str]:
        """Sites whose shares have come, this one included; a mask is shared with each of them."""
        return sorted([*self._received, self.site])

    def offer(self) -> SignedKeys:
        """Exchange 0: this site's keys of the session, signed."""
        self._advance(Step.KEYS)
        share = self._share_key.public_key().public_bytes_raw()
        mask = self._mask_key.public_key().public_bytes_raw()
        statement = keys_statement(self._study, self._session, self.site, share, mask)
        self._offered = SignedKeys(self.site, share, mask, self._key.sign(statement, SIGNING))
        return self._offered

    def deal(self, keys: Sequence[SignedKeys]) -> Deal:
        """Exchange 1: check everybody's keys; hand out shares of both seeds.

        Raises:
            MessageError: A site is not registered, doubled, or not the one that signed; this
                site's own keys were altered or left out; too few sites.
        """
        self._advance(Step.SHARES)
        group = make_group(self._study, self._session, keys, self._terms)
        if group.keys.get(self.site) != self._offered:
            raise MessageError("the keys of this site were altered or left out on their way")
        for site, each in group.keys.items():
            if site not in self._registered:
                raise MessageError(
                    f"{site!r} is not among the registered sites of the start kit: ask the "
                    "coordinator for a new one if it has joined since"
                )
            verified(each, self._registered[site], self._study, self._session)
        self._group = group
        self_shares = split(self._self_seed, group.threshold, group.sites)
        mask_shares = split(self._mask_seed, group.threshold, group.sites)
        pairs = {site: self_shares[site] + mask_shares[site] for site in group.sites}
        self._own = (self_shares[self.site], mask_shares[self.site])
        sealed = {
            site: seal(pair, self._envelope_key(self.site, site), self._envelope(self.site, site))
            for site, pair in pairs.items()
            if site != self.site
        }
        return Deal(self._promise(group, pairs), sealed)

    def _promise(self, group: Group, pairs: Mapping[str, bytes]) -> Promise:
        """What this site commits to: its self-mask's seed, and the shares that everyone gets."""
        transcript = group.transcript
        seed = commitment(self._self_seed, self_purpose(transcript, self.site))
        shares = tuple(promised(transcript, self.site, site, pair) for site, pair in pairs.items())
        statement = promise_statement(transcript, self.site, seed, shares)
        return Promise(seed, shares, self._key.sign(statement, SIGNING))

    def receive(self, sealed: Mapping[str, bytes], promises: Mapping[str, Promise]) -> None:
        """Exchange 2, first half: open the shares that were sealed for this site.

        Each is held against what its dealer has committed to, `promises`.

        Raises:
            DealtWrongError: A dealer's shares are others than those it has committed to.
            MessageError: A sender is not of the session, an envelope cannot be opened, a promise is
                missing or not its dealer's, or too few sites have dealt.
        """
        self._advance(Step.RECEIVED)
        group = self.group
        for site, envelope in sealed.items():
            if site == self.site or site not in group.keys:
                raise MessageError(f"shares of {site!r}, which is no other site of this session")
            if site not in promises:
                raise MessageError(f"shares of {site!r}, and nothing of what it commits to")
            check_promise(group, site, promises[site], self._registered[site])
            key = self._envelope_key(site, self.site)
            try:
                content = unseal(envelope, key, self._envelope(site, self.site))
            except MessageError as error:
                raise MessageError(f"the sealed shares of {site!r}: {error}") from None
            given = promised(group.transcript, site, self.site, content)
            if given != promises[site].shares[group.sites.index(self.site)]:
                raise DealtWrongError(site, key)
            self._received[site] = (content[:SHARE_BYTES], content[SHARE_BYTES:])
        if len(self.dealers) < group.threshold:
            raise MessageError(
                f"shares of {len(self.dealers)} sites, at least {group.threshold} of "
                f"{len(group.keys)} must stay"
            )

    def mask(self, arrays: Mapping[str, Integers], question: str) -> None:
        """Exchange 2, second half: hide this site's integers, in place.

        They are quantised for as many sites as are in the group. `question` is the hash of what
        they are the answer to, and must be the same at all sites.

        Raises:
            MessageError: Out of order.
        """
        self._advance(Step.MASKED)
        self._question = question
        transcript = self.group.transcript
        add_mask(arrays, derived(self._self_seed, self_purpose(transcript, self.site)), 1)
        for site in self._received:
            purpose = pair_purpose(transcript, question, self.site, site)
            key = agreed(self._mask_key, self.group.keys[site].mask_key, site, purpose)
            add_mask(arrays, key, 1 if self.site < site else -1)

    def sign(self, survivors: Sequence[str]) -> bytes:
        """Exchange 3: agree to who is in the sum, by sorted names.

        Raises:
            MessageError: It is not so as far as this site knows, or they are too few.
        """
        self._advance(Step.SURVIVORS)
        self._check(survivors)
        self._survivors = tuple(survivors)
        return self._key.sign(self._statement(), SIGNING)

    def unmask(self, survivors: Sequence[str], signatures: Mapping[str, bytes]) -> Unmasking:
        """Exchange 4: what takes the masks off the sum of these very sites, and off no other.

        Of a site in the sum the share of its self-mask's seed, of one that dropped out that of its
        mask key's. Both of one site would uncover its numbers: that never happens, as a site is in
        the one list or not and this step is done once.

        Raises:
            MessageError: Another list than this site has signed, or too few that have signed the
                same for the same question.
        """
        self._advance(Step.UNMASKED)
        if tuple(survivors) != self._survivors:
            raise MessageError("another list of sites than this site has signed")
        group = self.group
        statement = self._statement()
        agreeing = [
            site
            for site in survivors
            if site in signatures and is_signed(self._registered[site], signatures[site], statement)
        ]
        if len(agreeing) < group.threshold:
            raise MessageError(
                f"{len(agreeing)} sites have signed what this site has of who is in the sum and of "
                f"what was asked, needed are {group.threshold} of {len(group.keys)}: the others "
                "have not signed, or were told something else"
            )
        shares = {**self._received, self.site: self._own}
        return Unmasking(
            {site: shares[site][0] for site in survivors},
            {site: shares[site][1] for site in self.dealers if site not in survivors},
        )

    def _check(self, survivors: Sequence[str]) -> None:
        """A list that this site may sign."""
        if list(survivors) != sorted(set(survivors)):
            raise MessageError("survivors: names must be sorted, each of them once")
        if self.site not in survivors:
            raise MessageError("this site has sent its numbers and is not in the sum")
        strangers = sorted(set(survivors) - set(self.dealers))
        if strangers:
            raise MessageError(f"{', '.join(strangers)}: in the sum without having dealt shares")
        if len(survivors) < self.group.threshold:
            raise MessageError(
                f"a sum over {len(survivors)} sites, at least {self.group.threshold} of "
                f"{len(self.group.keys)} must stay"
            )

    def _statement(self) -> bytes:
        """What this site signs, and every other that saw the same."""
        return survivors_statement(
            self.group.transcript, self._question, self.dealers, self._survivors
        )

    def _envelope(self, sender: str, addressee: str) -> bytes:
        return shares_purpose(self.group.transcript, sender, addressee)

    def _envelope_key(self, sender: str, addressee: str) -> bytes:
        """The key of one envelope: of sender and addressee, in this direction."""
        other = addressee if sender == self.site else sender
        theirs = self.group.keys[other].share_key
        return agreed(self._share_key, theirs, other, self._envelope(sender, addressee))

    def _advance(self, step: Step) -> None:
        """Go on to a step, which is thereby done with, even if it is refused."""
        if self.step != step - 1:
            raise MessageError(
                f"a step of the secure sum out of order: asked is {step.name.lower()}, this site "
                f"has done {self.step.name.lower()}; a sum is repeated in a new session"
            )
        self.step = step
