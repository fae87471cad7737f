"""A site's reply as a Message, for Flower's strategies, which take nothing else."""

from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata


def training_reply(content: RecordDict) -> Message:
    """Make a reply of `content`; the public constructor needs the identity of a running app."""
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type="train",
    )
    return make_message(metadata, content)
