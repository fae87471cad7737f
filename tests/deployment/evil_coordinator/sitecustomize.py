"""A coordinator that sits in the middle: it hands on keys of its own in the name of a site.

Imported by every Python that starts with this on its path; only the ServerApp is changed.
"""

from pathlib import Path

if "flwr-serverapp" in Path("/proc/self/cmdline").read_text():
    from dataclasses import replace

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from hica.wire.messages import Kind
    from hica_server import secure_exchange

    honest = secure_exchange.exchange
    own = X25519PrivateKey.generate().public_key().public_bytes_raw().hex()

    def in_the_middle(grid, nodes, request, *arguments, **named):
        if request.kind == Kind.SHARES:
            keys = [
                {**each, "share_key": own, "mask_key": own} if each["site"] == "south" else each
                for each in request.settings["keys"]
            ]
            request = replace(request, settings={**request.settings, "keys": keys})
        return honest(grid, nodes, request, *arguments, **named)

    secure_exchange.exchange = in_the_middle
