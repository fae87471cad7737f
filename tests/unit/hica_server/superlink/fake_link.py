"""Flower's grid and the uploads at its SuperLink, without a SuperLink."""

from types import SimpleNamespace

from flwr.app import Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto import node_pb2
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)


class Upload:
    """An answer at the SuperLink.

    Attributes:
        answer: The message as it is announced.
        tree: The ids of its objects, as announced.
        objects: Their contents by id, in the order in which they are pushed.
    """

    def __init__(self, answer, whole=None):
        whole = answer if whole is None else whole
        self.answer = answer
        self.tree = get_object_tree(whole)
        self.objects = {key: it.deflate() for key, it in get_all_nested_objects(whole).items()}
        self.root = self.tree.object_id

    def hold_back(self, *ids):
        """Have these objects on their way."""
        self.objects |= dict.fromkeys(ids, b"")


class Link:
    """Flower's grid: answers are announced one look after the other.

    Attributes:
        looks: What is announced at each look, a list of uploads; afterwards nothing.
        refused: Nodes whose messages the SuperLink does not take.
        stores: Whether it stores the objects it is given.
        loses: How often it is restarted when it is given the third object of a message.
        announcements: How often it was told of messages.
        known: Objects that it has already.
        asked: The node of each message it was told of, by the message's id.
        pushed: The objects it was given, in their order, by id.
        awaited: Ids it was asked for at each look.
        pulled: Objects it was asked for.
        confirmed: Messages it may forget.
        when_pulled: Called with an object's id before it is given out.
    """

    run = SimpleNamespace(run_id=7)
    node = node_pb2.Node(node_id=1)

    def __init__(self, *looks, refused=()):
        self.looks = list(looks)
        self.refused = refused
        self.uploads = [upload for look in looks for upload in look]
        self.stores, self.known, self.loses, self.announcements = True, set(), 0, 0
        self.asked, self.pushed = {}, {}
        self.awaited, self.pulled, self.confirmed = [], [], []
        self.when_pulled = lambda object_id: None
        self._runtime_client = SimpleNamespace(
            PushMessages=self._take_note,
            PushObject=self._take_in,
            PullMessages=self._announce,
            PullObject=self._give_out,
            ConfirmMessageReceived=lambda request: self.confirmed.append(request.message_object_id),
        )

    def get_nodes(self):
        return [NodeInfo(node_id=1, name="a"), NodeInfo(node_id=2, name="b")]

    def _take_note(self, request):
        told = [message.metadata for message in request.messages_list]
        self.announcements += 1
        self.asked |= {each.message_id: each.dst_node_id for each in told}
        trees = request.message_object_trees
        wanted = {each.object_id for tree in trees for each in iterate_object_tree(tree)}
        return PushAppMessagesResponse(
            message_ids=[
                "" if each.dst_node_id in self.refused else each.message_id for each in told
            ],
            objects_to_push=wanted - self.known,
            session_id="session",
        )

    def _take_in(self, request):
        assert (request.run_id, request.node) == (self.run.run_id, self.node)
        assert request.session_id == "session" and request.object_id not in self.pushed
        if self.loses and len(self.pushed) == 2:
            self.loses -= 1
            self.pushed.clear()
            return PushObjectResponse(stored=False)
        if self.stores:
            self.pushed[request.object_id] = request.object_content
        return PushObjectResponse(stored=self.stores)

    def _announce(self, request):
        self.awaited.append({f"to {self.asked[each]}" for each in request.message_ids})
        found = self.looks.pop(0) if self.looks else []
        messages = [message_to_proto(upload.answer) for upload in found]
        ids = {f"to {node}": message_id for message_id, node in self.asked.items()}
        for message in messages:
            question = message.metadata.reply_to_message_id
            message.metadata.reply_to_message_id = ids.get(question, question)
        return PullAppMessagesResponse(
            messages_list=messages,
            message_object_trees=[upload.tree for upload in found],
        )

    def _give_out(self, request):
        assert (request.run_id, request.node) == (self.run.run_id, self.node)
        self.pulled.append(request.object_id)
        self.when_pulled(request.object_id)
        contents = [it.objects for it in self.uploads if request.object_id in it.objects]
        if not contents:
            return PullObjectResponse(object_found=False)
        content = contents[0][request.object_id]
        return PullObjectResponse(
            object_found=True, object_available=content != b"", object_content=content
        )


def to(node, content=None):
    return Message(content or RecordDict(), node, "train.align")


def reply(node, content=None):
    asked = to(node)
    asked.metadata.__dict__["_message_id"] = f"to {node}"
    return Message(content or RecordDict(), reply_to=asked)


def answer(node, content=None):
    return Upload(reply(node, content))


def nodes_of(messages):
    return [message.metadata.src_node_id for message in messages]
