"""HiCA: federated few-shot medical vision-language learning, the method.

This package knows no site's files and imports none of the other three.
"""

import os

# Flower reads these when it is first imported; nothing of a hospital's run is reported anywhere.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

__version__ = "0.1.0"
