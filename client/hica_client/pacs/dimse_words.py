"""What a DICOM node's refusals and statuses mean, and what to do (PS3.7 C, PS3.8 9.3.4)."""

from collections.abc import Sequence

from pynetdicom.association import Association

from hica_client.pacs.address import Node, Own
from hica_client.pacs.connection import AGAIN
from hica_client.pacs.dicomweb_words import GONE

NO_FIND = "does not offer searches for studies (C-FIND, study root); ask its administrator to"
NO_MOVE = (
    "does not offer to send studies to this site (C-MOVE); ask its administrator, or give --as "
    "without a port, for C-GET"
)
NO_GET = (
    "does not offer to send studies back on the same connection (C-GET); have it send them: --as "
    "HICA@10.0.0.5:11112 with this machine's address and a port, both registered at the PACS"
)
NO_ASSOCIATION = (
    "the connection was made, but no DICOM association; check that this is its DICOM port, and "
    "whether it wants TLS (dicoms:) or none (dicom:)"
)
NO_DATA_SET = "answers a search with something that is no data set; tell its administrator"

CALLER_UNKNOWN, CALLED_UNKNOWN = 3, 7
FROM_USER, FROM_PRESENTATION = 1, 3
UNKNOWN_DESTINATION = 0xA801
NOT_ALLOWED = 0x0124
NO_RESOURCES = (0xA700, 0xA701, 0xA702)


def rejection(association: Association, node: Node, own: Own) -> str:
    """Why an association was rejected."""
    answer = association.acceptor.primitive
    source = getattr(answer, "result_source", None)
    reason = getattr(answer, "diagnostic", None)
    if (source, reason) == (FROM_USER, CALLER_UNKNOWN):
        return (
            f"does not know the AE title {own.title!r} of this site; have its administrator add "
            "it, or give the one that is there (--as)"
        )
    if (source, reason) == (FROM_USER, CALLED_UNKNOWN):
        return f"is not the AE title {node.title!r}; ask its administrator for the right one"
    if source == FROM_PRESENTATION:
        return f"has no connection free at the moment; try again later: {AGAIN}"
    return (
        "rejects the association without a reason; ask its administrator whether it lets AE title "
        f"{own.title!r} at this machine's address in, and is itself {node.title!r}"
    )


def broken_off(own: Own) -> str:
    """Why there is no answer to the end."""
    return (
        "broke off or did not answer in time; if it does so each time, have its administrator "
        f"check that it knows AE title {own.title!r} at this machine's address; {AGAIN}"
    )


def find_words(code: int) -> str:
    """Why a search ended."""
    if code in NO_RESOURCES:
        return (
            f"has not the means for this search (status 0x{code:04X}); ask for fewer studies at a "
            "time (--from-date, --to-date)"
        )
    if code == NOT_ALLOWED:
        return "does not allow this site to search; ask its administrator to"
    return f"does not take the search (status 0x{code:04X}); ask its administrator, who sees why"


def move_words(code: int | None, own: Own) -> str | None:
    """Why no C-MOVE will go through; None: others may."""
    if code == UNKNOWN_DESTINATION:
        return (
            f"move destination unknown: have its administrator add the AE title {own.title!r} with "
            f"this machine's address and port {own.port}, or give the one that is there (--as)"
        )
    return get_words(code)


def get_words(code: int | None) -> str | None:
    """Why no request for images will go through; None: others may."""
    if code == NOT_ALLOWED:
        return "does not allow this site to fetch; ask its administrator to"
    return None


def lost_words(code: int | None) -> str:
    """Why instances have not come that were asked for."""
    if code is None:
        return "did not come before the PACS broke off or fell silent; try again later"
    if code == 0:
        return GONE
    if code in NO_RESOURCES:
        return "could not be sent by the PACS, which lacks the means at the moment; try again later"
    return (
        f"could not be sent by the PACS (status 0x{code:04X}); ask its administrator, who sees why "
        "in its log"
    )


def unreached(own: Own) -> str:
    """Why nothing has come, where nobody has even connected."""
    return (
        f"were not sent here: no connection came to {own.host}:{own.port}; have the PACS's "
        f"administrator check address and port of AE title {own.title!r} there, and the firewall "
        "between"
    )


def turned_away(strangers: Sequence[str], own: Own) -> str:
    """What to do where the PACS sends under another title, or to another."""
    return (
        f"{'; '.join(strangers)}, which is turned away; set sender in [pacs] of the site file to "
        f"the title it sends as, and have it send to {own.title!r}"
    )
