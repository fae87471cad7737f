"""Four sites with keys in secure sums, and a coordinator that asks them what it likes."""

import numpy as np
import torch
from flwr.app import Message

from hica.deployment import keys
from hica.deployment.kit import roster_json
from hica.method.model import AlignmentModel
from hica.secure_sum.collector import Collector
from hica.secure_sum.forms import masked_spec, threshold_of, values_of
from hica.secure_sum.wire import Deal, SignedKeys, Unmasking
from hica.steps.alignment import ALIGNMENT
from hica.steps.state import Bank, State
from hica.text.bank import TextBank
from hica.wire.messages import Kind, Request, spec_of
from hica.wire.records import decode_reply, encode_request
from hica_client.app import app, session_for
from hica_client.site import load_site
from hica_simulations.grid import InProcessGrid

DIM = 128
NUMBER = "ab" * 16
SITES = ("east", "north", "south", "west")


class Federation:
    """Four sites with keys, and a coordinator that asks them what it likes.

    Attributes:
        study: With secure aggregation.
        gone: Sites that are not asked.
    """

    def __init__(self, files, study):
        self.files, self.study = dict(zip(SITES, files, strict=True)), study
        self.gone = set()
        roster = {
            name: keys.generate(file.parent / "keys" / "site") for name, file in self.files.items()
        }
        self.hand_out(roster)
        rows = np.eye(6, DIM, dtype=np.float32)
        self.bank = Bank(rows[:2], rows[2:])
        self.payload = State(
            shared=self.weights(),
            bank=self.bank,
            centre=np.zeros((2, DIM), np.float32),
            scale=np.ones((2, DIM), np.float32),
            bias=np.zeros(2),
        ).arrays()

    def hand_out(self, roster, *to):
        """Lay the list of keys into the kits of these sites; without any, of all."""
        for name in to or self.files:
            kit = self.files[name].parent / "kit"
            kit.mkdir(exist_ok=True)
            (kit / "keys.json").write_bytes(roster_json(roster))

    def weights(self):
        bank = TextBank.assemble(self.study.class_texts, *map(torch.from_numpy, self.bank))
        file = self.files["east"]
        session = session_for(file, load_site(file), Request(ALIGNMENT.kind, self.study))
        model = AlignmentModel(session.pipeline.tower, bank, True)
        return {name: v.detach().numpy().copy() for name, v in model.shared().items()}

    def spec(self):
        """Of an update."""
        return spec_of({n: v for n, v in self.payload.items() if n.startswith("shared.")})

    def ask(self, site, kind, settings, round_=0, arrays=None):
        """The site's answer, in the clear or not; raises what the site says it could not do."""
        request = Request(kind, self.study, round_, settings, arrays or {})
        with InProcessGrid(app, [{"site": str(self.files[site])}], {}) as grid:
            [answer] = grid.send_and_receive([Message(encode_request(request), 1, kind)])
        assert not answer.has_error(), answer.error.reason
        return answer.content

    def told(self, site, kind, settings, round_=0):
        return decode_reply(self.ask(site, kind, settings, round_), kind, round_, {}).details

    @property
    def here(self):
        return [name for name in SITES if name not in self.gone]

    def begin(self, number=NUMBER):
        """Exchanges 0 and 1."""
        self.number = number
        # Nobody drops out here after having dealt, so the collector needs no question.
        self.collector = Collector(self.study.sha256, number, threshold_of(self.study), "")
        offered = [
            SignedKeys.from_json(self.told(s, Kind.KEYS, {"session": number})) for s in self.here
        ]
        self.collector.form_group(offered)
        listed = {"session": number, "keys": [each.to_json() for each in offered]}
        deals = {s: Deal.from_json(self.told(s, Kind.SHARES, listed)) for s in self.here}
        sealed = self.collector.take_deals(deals)
        self.part = {
            "session": number,
            "sealed": {a: {d: e.hex() for d, e in row.items()} for a, row in sealed.items()},
            "promises": {d: each.to_json() for d, each in self.collector.promises.items()},
        }

    def masked(self, site, step, spec, settings=None, round_=0, **arrays):
        """Exchange 2."""
        settings = {**(settings or {}), "sum": self.part}
        content = self.ask(site, step.kind, settings, round_, {**self.payload, **arrays})
        return decode_reply(content, step.kind, round_, masked_spec(step, self.study, spec))

    def collect(self, step, spec, settings=None, round_=0, **arrays):
        """Exchange 2 of all; returns their answers."""
        replies = {s: self.masked(s, step, spec, settings, round_, **arrays) for s in self.here}
        for site, reply in replies.items():
            self.collector.add(site, reply.arrays)
        return replies

    def finish(self, step):
        """Exchanges 3 and 4, and the sum."""
        listed = {"session": self.number, "survivors": self.collector.survivors}
        signed = {s: self.told(s, Kind.SURVIVORS, listed)["signature"] for s in self.here}
        listed["signatures"] = signed
        shares = {s: Unmasking.from_json(self.told(s, Kind.UNMASK, listed)) for s in self.here}
        totals = self.collector.total(shares)
        return values_of(totals, step, self.study, len(self.collector.group.keys))
