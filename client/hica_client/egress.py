"""Egress: what leaves the site in a reply, all of it checked by the policy and accounted for."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from flwr.app import Message, RecordDict

from hica.errors import DataError, MessageError
from hica.wire.messages import Request, SiteError
from hica.wire.records import decode_reply, payload_bytes
from hica_client.audit import Event
from hica_client.policy import may_leave
from hica_client.site import Site

MAX_DETAILS_BYTES = 1_000_000
"""Of a reply's numbers and texts as JSON: metrics of a hundred classes have a tenth of it."""

DATA_WORDS = "its data cannot be used; why is in the log of the site, as it may name patients"
"""What the coordinator reads in the place of a DataError."""


class PolicyError(MessageError):
    """A request or a reply that this site does not let through."""


def account_for(reply: Message, request: Request, site: Site, event: Event) -> Event:
    """Check every part of the app's reply; returns `event`, so far known, with all that leaves.

    Raises:
        MessageError: It may not leave: parts that are not accounted for, more bytes than allowed,
            arrays that the policy holds back, values that are not finite, another site's name,
            or what is wrong with an image or a patient.
    """
    record = _content(reply)
    arrays = dict(record.array_records["arrays"])
    size = payload_bytes(record)
    if size > site.policy.max_reply_bytes:
        raise PolicyError(
            f"the reply has {size} bytes, policy.max_reply_bytes is {site.policy.max_reply_bytes}"
        )
    held_back = sorted(name for name in arrays if not may_leave(site.policy, name))
    if held_back:
        raise PolicyError(f"policy.tensors holds back the arrays {', '.join(held_back)}")
    header = str(record.config_records["message"]["header"])
    event = replace(event, bytes=size, header=hashlib.sha256(header.encode()).hexdigest())
    # Each array must be what it says of itself, as that is what the log will say of it.
    spec = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    try:
        read = decode_reply(record, request.kind, request.round, spec)
    except SiteError as failure:
        _check_name(failure.site, site)
        if arrays:
            raise PolicyError("the reason of a failure comes with arrays") from None
        if failure.error == DataError.__name__:
            raise PolicyError(DATA_WORDS) from None
        shown = ["proof"] if failure.accuses else []
        return replace(event, decision="failed", reason=str(failure), details=shown)
    _check_name(read.site, site)
    _check_details(read.details)
    return replace(
        event,
        decision="sent",
        examples=read.examples,
        details=sorted(read.details),
        arrays={
            name: [list(array.shape), array.dtype, hashlib.sha256(array.data).hexdigest()]
            for name, array in arrays.items()
        },
    )


def _content(reply: Message) -> RecordDict:
    """The reply's record, if it has the parts that the log accounts for and no other."""
    if reply.has_error():
        raise PolicyError("the app answered with an error")
    record = reply.content
    if (
        set(record) != {"message", "arrays"}
        or set(record.config_records) != {"message"}
        or set(record.array_records) != {"arrays"}
        or set(record.config_records["message"]) != {"header"}
    ):
        raise PolicyError("the reply has parts that the audit log would not show")
    return record


def _check_name(name: str, site: Site) -> None:
    """The reply speaks for this site only."""
    if name != site.site.name:
        raise PolicyError(f"the app answers as {name!r}")


def _check_details(details: dict[str, Any]) -> None:
    """Numbers and texts are few, and the numbers finite."""
    try:
        size = len(json.dumps(details, allow_nan=False))
    except ValueError:
        raise PolicyError("details hold NaN or infinite values") from None
    if size > MAX_DETAILS_BYTES:
        raise PolicyError(f"details of {size} bytes, at most {MAX_DETAILS_BYTES} may leave")
