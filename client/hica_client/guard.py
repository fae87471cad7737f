"""The guard: what stands between the coordinator and the local app, in both directions.

A request reaches the app only if the coordinator has signed it for this site, the policy answers
its kind, its very study was approved here and the run was started with that study and nothing
else. A reply leaves only if the policy lets all of it leave, and after the audit log has taken note
of it.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.app import Context, Error, Message, RecordDict

from hica.errors import DataError, HicaError, MessageError
from hica.steps.plan import all_kinds
from hica.wire.messages import Request, failure
from hica.wire.records import decode_request, encode_reply
from hica.wire.signature import verify as verify_signature
from hica_client.app import without_folders
from hica_client.approval import approved, check_keys
from hica_client.audit import Event, append, verify
from hica_client.egress import DATA_WORDS, PolicyError, account_for
from hica_client.policy import conflicts
from hica_client.site import Site

logger = logging.getLogger("hica.client")

App = Callable[[Message, Context], Message]

REFUSED = 6
"""Flower's ErrorCode.MOD_FAILED_PRECONDITION, to which `flwr.app` gives no name."""
MAX_REASON_CHARACTERS = 1000
"""What the coordinator reads of a reason; also keeps the log from being filled by long ones."""


class Guard:
    """Answers the coordinator's messages by the local app, under the site's policy.

    `coordinator` is the key that its requests are signed with, as the start kit has it.

    Raises:
        DataError: The audit log was tampered with: nothing may follow in such a log.
        StorageError: It cannot be read.
    """

    def __init__(self, site: Site, coordinator: EllipticCurvePublicKey) -> None:
        verify(site.audit_log)
        self.site, self._coordinator = site, coordinator

    def answer(self, message: Message, context: Context, app: App) -> Message:
        """Answer a message by the app. Raises nothing: what goes wrong is the answer, and logged.

        The run's configuration, in `context`, must be that of the approved study. Why there is no
        answer is told as a reply of the message's kind, which names the site, or as a Flower error
        where the message is not the coordinator's, or could not be read.
        """
        kind, run_id = message.metadata.message_type, message.metadata.run_id
        event = Event("message", "refused", kind=kind if kind in all_kinds() else "", run_id=run_id)
        try:
            verify_signature(message, self._coordinator)  # before anything of it is read
            request = _read(message)
        except Exception as error:
            return self._refused(message, None, event, error)
        event = replace(event, round=request.round, study=request.study.sha256)
        try:
            self._admit(request, context)
            reply = app(message, context)
            leaving = account_for(reply, request, self.site, event)
        except Exception as error:
            return self._refused(message, request, event, error)
        return self._logged(message, reply, leaving)

    def _admit(self, request: Request, context: Context) -> None:
        """Let a request pass to the app, or raise why it may not."""
        policy, study = self.site.policy, request.study
        if request.kind not in policy.kinds:
            raise PolicyError(f"policy.kinds of this site does not list {request.kind}")
        if not approved(self.site, study.sha256):
            raise PolicyError(
                f"study {study.sha256[:12]} is not approved at this site; to approve it there: "
                f"hica-client approve SITE {study.sha256[:12]}"
            )
        if study.privacy.secure_aggregation:
            check_keys(self.site, study.sha256)
        forbidden = conflicts(policy, study)
        if forbidden:
            raise PolicyError("; ".join(forbidden))
        settings = dict(context.run_config)
        if settings != {"study": study.sha256}:
            raise PolicyError(
                f"the run was started with {str(settings)[:200]}, not with the approved study alone"
            )

    def _refused(
        self, message: Message, request: Request | None, event: Event, error: Exception
    ) -> Message:
        """The reply that says why there is no other; nothing of the app's reply is in it."""
        reason = _words(error)
        logger.warning("%s refused: %s", event.kind, error)
        event = replace(event, reason=reason)
        if request is None:
            return self._logged(message, self._error(message, reason), event)
        reply = encode_reply(
            failure(request.kind, self.site.site.name, request.round, reason, error)
        )
        return self._logged(message, Message(reply, reply_to=message), event)

    def _logged(self, message: Message, reply: Message, event: Event) -> Message:
        """Take note of a reply and give it back; what cannot be noted does not leave."""
        try:
            append(self.site.audit_log, event)
        except HicaError as error:
            logger.error("nothing leaves: %s", error)
            return self._error(message, f"nothing leaves without a log: {_words(error)}")
        return reply

    def _error(self, message: Message, reason: str) -> Message:
        """A reply that needs nothing of the request."""
        return Message(Error(REFUSED, f"{self.site.site.name}: {reason}"), reply_to=message)


def _read(message: Message) -> Request:
    """The request without its arrays, which the app reads itself."""
    kind = message.metadata.message_type
    if kind not in all_kinds():
        raise MessageError(f"{kind[:64]!r} is no kind of request that this version knows")
    header = RecordDict()
    header.update(message.content.config_records)
    return decode_request(header, kind)


def _words(error: Exception) -> str:
    """An error as the coordinator may read it: nothing that could quote an image or a patient."""
    if isinstance(error, DataError):
        return DATA_WORDS
    if not isinstance(error, HicaError):
        logger.error("fault in the program", exc_info=error)
        return f"fault in the program: {type(error).__name__}"
    return without_folders(f"{type(error).__name__}: {error.outside}")[:MAX_REASON_CHARACTERS]
