"""A hospital that lies: its runner spoils the updates it sends, once its own guard has passed them.

Imported by every Python that starts with this folder on its path. HICA_TEST_ATTACKS names an
attack for each round of alignment, the first round's first; later rounds are answered honestly.
"""

import json
import os
import sys

if "hica_client.flower_runner" in sys.orig_argv:
    from attacks import ATTACKS, MESSAGE_ATTACKS
    from flwr.supernode.runtime import run_clientapp

    import hica.wire.packing

    planned = os.environ["HICA_TEST_ATTACKS"].split()
    under_way = ""
    honest_pack, honest_push = hica.wire.packing.pack, run_clientapp.push_message

    def pack(record):
        global under_way
        header = json.loads(record.config_records["message"]["header"])
        aligns = header["kind"] == "train.align" and header["round"] < len(planned)
        under_way = planned[header["round"]] if aligns else ""
        return ATTACKS.get(under_way, lambda record, pack: pack(record))(record, honest_pack)

    def push(supernode, message, context):
        MESSAGE_ATTACKS.get(under_way, lambda message: None)(message)
        honest_push(supernode, message, context)

    hica.wire.packing.pack, run_clientapp.push_message = pack, push
