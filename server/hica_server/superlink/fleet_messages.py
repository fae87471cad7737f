"""What a SuperNode announces, read before the SuperLink sees it.

Flower 1.41 holds every call of the Fleet API against the key that signed it: `request.node`, of
`activate-node` the public key, of `deactivate-node` the node id (`authenticate_node`). Nobody
registers or unregisters a node through it. Of `push-messages` the message itself is held against
nothing, so this is looked at here: with the coordinator's number as its sender, anybody's message
would be a request to any site.

What a message answers need not be remembered here: the SuperLink takes an answer only from the
node that was asked, once for each request, for its run and for no longer than the request lives
(`store_message_res`). Its database keeps that, so a restart changes nothing.

Objects (`push-object`, `pull-object`, `confirm-message-received`) are named by their SHA-256, and
who knows that name may have them. One is only stored where it was announced.
"""

from flwr.app import DEFAULT_TTL
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest

LEEWAY = 600.0
"""Seconds: clocks of sites may differ from ours by five minutes, and a message is under way."""


def why_refused(announcement: bytes, now: float) -> str | None:
    """Why the body of `push-messages` is not passed on; None where it is one answer of its node.

    `now` is in seconds since 1970. That the node is the key's own, the SuperLink checks.
    """
    request = PushMessagesRequest()
    try:
        request.ParseFromString(announcement)
    except Exception:  # DecodeError, of a package without types
        return "not an announcement of a message"
    if (len(request.messages_list), len(request.message_object_trees)) != (1, 1):
        return "announces not one message at a time"  # of more, Flower takes the first
    told = request.messages_list[0].metadata
    if told.src_node_id != request.node.node_id:
        return "sends a message in the name of another"
    if told.dst_node_id != SUPERLINK_NODE_ID:
        return "sends a message to another than the coordinator"
    if not told.reply_to_message_id:
        return "sends a message that answers no request"
    if request.message_object_trees[0].object_id != told.message_id:
        return "announces objects of another message"
    ends = told.created_at + told.ttl
    if not (told.created_at > 0.0 and ends - now <= DEFAULT_TTL + LEEWAY):  # nor is it NaN
        return "sends a message that lives longer than any request"
    return None
