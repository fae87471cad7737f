"""A hospital that lies: its runner spoils the updates it sends, once its own guard has passed them.

Imported by every Python that starts with this folder on its path. HICA_TEST_ATTACKS names an
attack for each round of alignment, the first round's first; later rounds are answered honestly.
"""

import json
import os
import sys

if "hica_client.flower_runner" in sys.orig_argv:
    from attacks import ATTACKS

    import hica.parcel

    planned = [ATTACKS[name] for name in os.environ["HICA_TEST_ATTACKS"].split()]
    honest_pack = hica.parcel.pack

    def pack(record):
        header = json.loads(record.config_records["message"]["header"])
        if header["kind"] == "train.align" and header["round"] < len(planned):
            return planned[header["round"]](record, honest_pack)
        return honest_pack(record)

    hica.parcel.pack = pack
