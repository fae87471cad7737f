"""The ClientApp: every request goes the same way, whatever step it is of.

decode → is it in the study's plan → are its arrays as declared → the step's answer, released
(`hica.privacy.release`) → kept, charged → masks → reply

Every request carries the study and all weights it needs, so a site restarted in the middle of a
run answers as if nothing had happened. Randomness is derived from (seed, site, kind, round).
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from hica.errors import HicaError, MessageError
from hica.privacy.accountant import Charge
from hica.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from hica.privacy.release import Guarantee, check_request, release, with_more_noise
from hica.secure_sum.forms import question_of
from hica.seeds import derived_seed
from hica.steps.plan import check_asked, step_kinds, turn_of
from hica.steps.result import RESULT
from hica.steps.sent import check_sent
from hica.steps.state import State
from hica.steps.step import Answer, Turn
from hica.towers.preprocessing import transform_json
from hica.wire.messages import Kind, Reply, Request, failure
from hica.wire.records import decode_request, encode_reply
from hica_client.answers import Kept
from hica_client.audit import position
from hica_client.ledger import Budget, Release, afford, charge
from hica_client.result import gain_words, is_whole, keep_result
from hica_client.secure import EXCHANGES, check_kept, group_of, masked, receive
from hica_client.session import Session
from hica_client.site import Site, load_site

logger = logging.getLogger("hica.client")

Handler = Callable[[Session, Request], Reply]

_sessions: dict[tuple[str, str], tuple[list[tuple[int, int]], Session]] = {}
"""By site file and study; with what the site's rows came from when it was made."""


def session_for(path: Path, site: Site, request: Request) -> Session:
    """The session of a site and the request's study.

    It is made anew once a patient has withdrawn, or the manifest was edited; what reviewers decide
    it takes in.
    """
    key = (str(path), request.study.sha256)
    files = [file for file in (site.withdrawals, site.data.manifest) if file.exists()]
    rows_of = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    if key not in _sessions or _sessions[key][0] != rows_of:
        _sessions[key] = (rows_of, Session(site, request.study))
    session = _sessions[key][1]
    session.look_again()
    return session


def forget_sessions() -> None:
    """Drop all prepared data: for simulations, between runs."""
    _sessions.clear()


def site_file(context: Context) -> Path:
    """Path of `site.toml`, a setting of the node.

    Raises:
        MessageError: It is not set.
    """
    path = context.node_config.get("site")
    if path is None:
        raise MessageError('this node has no site: set node-config site="/path/to/site.toml"')
    return Path(str(path))


def without_folders(text: str) -> str:
    """`text` with absolute paths cut to their last part; of folders with spaces a rest stays."""
    return re.sub(r"(?<![\w.…])/(?:[^\s/:'\"]+/)*", "", text)


def make_app() -> ClientApp:
    """A ClientApp that answers every kind of message there is."""
    app = ClientApp()
    handlers: dict[str, Handler] = {Kind.CAPABILITIES: capabilities, **EXCHANGES}
    for kind in [*handlers, *step_kinds()]:
        category, action = str(kind).split(".")
        register = {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category]
        register(action)(_answering(str(kind), handlers.get(kind, answer)))
    return app


def _answering(kind: str, handler: Handler) -> Callable[[Message, Context], Message]:
    """Decode, answer, encode; what a user can mend is answered in words.

    The coordinator reads what is wrong but not where: folders stay out of the answer.
    """

    def handle(message: Message, context: Context) -> Message:
        request = decode_request(message.content, kind)
        path = site_file(context)
        site = load_site(path)
        try:
            check_asked(request)
            session = session_for(path, site, request)
            session.run_id = message.metadata.run_id
            reply = handler(session, request)
        except HicaError as error:
            logger.error("%s: %s: %s", site.site.name, kind, error)
            reason = without_folders(f"{type(error).__name__}: {error.outside}")
            reply = failure(kind, site.site.name, request.round, reason, error)
        return Message(encode_reply(reply), reply_to=message)

    return handle


def capabilities(session: Session, request: Request) -> Reply:
    """What this site can take part in."""
    return Reply(request.kind, session.name, details=session.capabilities())


def answer(session: Session, request: Request) -> Reply:
    """A step's answer, as it leaves: once for every turn of the plan (`hica_client.answers`).

    It is on disk before it is charged, and charged before it leaves, so that whatever ends in
    between nothing leaves uncharged and nothing is charged twice.

    Raises:
        HicaError: Nothing may leave; says why.
    """
    turn, study = turn_of(request), request.study
    secure = study.privacy.secure_aggregation and turn.step.in_sum
    question = question_of(request)
    if secure:
        receive(session, request, turn.step, question)
    check_request(turn, request, session.width)
    check_sent(turn, study, session.start, request.arrays)
    kept = session.answers.find(turn, question)
    again = kept is not None
    if kept is None:
        session.answers.check_order(turn)
        if study.privacy.secure_aggregation and (turn.step.in_sum or turn.step.keeps):
            check_kept(session, request, turn.step)
        kept = fresh(session, request, turn, question)
        session.answers.keep(turn, question, kept)
    elif turn.step is RESULT and not is_whole(session.site, study):  # it was lost since
        model = session.model(State.from_arrays(request.arrays))
        keep_for_people(session, request, turn.step.answer(session, model, request))
    if kept.release:
        charge(session.site.ledger, kept.release, budget_of(session), again)
    if secure:
        # Neither the number of examples nor the loss: both are in the sum.
        arrays = masked(session, request, turn.step, in_present_group(session, request, turn, kept))
        return Reply(request.kind, session.name, request.round, arrays=arrays)
    found = kept.answer
    return Reply(
        request.kind, session.name, request.round, found.examples, found.details, found.arrays
    )


def fresh(session: Session, request: Request, turn: Turn, question: str) -> Kept:
    """An answer that was not given before, and what it will cost."""
    policy, study = session.site.policy, request.study
    spent: list[Release] = []

    def pay(cost: Charge, holds: str) -> None:
        costs = Release(
            study=study.sha256,
            run_id=session.run_id,
            round=request.round,
            kind=turn.step.kind,
            question=question,
            audited=position(session.site.audit_log),
            mechanism="gaussian" if cost.sampling_rate == 1.0 else "sampled gaussian",
            unit=study.privacy.unit,
            holds=holds,
            noise=policy.noise,
            noise_multiplier=cost.noise_multiplier,
            sampling_rate=cost.sampling_rate,
            steps=cost.steps,
        )
        afford(session.site.ledger, costs, budget_of(session))
        spent.append(costs)

    sum_over = sum_over_of(session, turn)
    given = Guarantee(pay, lambda: noise_of(session, question), sum_over)
    model = session.model(State.from_arrays(request.arrays), turn.step.centred)
    found = release(turn.step, session, model, request, given)
    session.keep(found.keep, question)
    keep_for_people(session, request, found)
    return Kept(found, spent[0] if spent else None, sum_over)


def keep_for_people(session: Session, request: Request, found: Answer) -> None:
    """Keep what a site's people read of a study that is over, where an answer has it."""
    if found.result is not None:
        preprocess = transform_json(session.pipeline.tower.tower)
        keep_result(session.site, request, found.result, preprocess)
        if found.result["gain"]:
            gained = ", ".join(gain_words(found.result["gain"]).values())
            logger.info("%s: joining gave %s, against training alone", session.name, gained)


def in_present_group(session: Session, request: Request, turn: Turn, kept: Kept) -> Answer:
    """A kept answer with the noise that it needs among the sites of the present sum.

    Fewer sites may be there than when it was made; then each adds some more.
    """
    needed = sum_over_of(session, turn)
    if kept.sum_over is None or needed is None or needed >= kept.sum_over:
        return kept.answer
    noise = noise_of(session, f"{question_of(request)} over {needed}")
    return with_more_noise(turn.step, request.study, kept.answer, (kept.sum_over, needed), noise)


def sum_over_of(session: Session, turn: Turn) -> int | None:
    """Sites whose noise adds up in this turn; None: the site's own is enough."""
    distributed = session.study.privacy.noise == "distributed" and turn.step.in_sum
    return group_of(session).threshold if distributed else None


def noise_of(session: Session, name: str) -> NoiseSource:
    """Where the site's noise comes from; what is seeded depends on the site and on `name`."""
    if session.site.policy.noise == "secure":
        return SecureNoise()
    return SeededNoise(derived_seed("noise", session.name, name))


def budget_of(session: Session) -> Budget:
    """What may be spent: by all studies at this site, and by this one."""
    policy, privacy = session.site.policy, session.study.privacy
    return Budget(
        max_epsilon=policy.max_epsilon,
        delta=policy.delta,
        study_epsilon=privacy.epsilon or 0.0,
        study_delta=privacy.delta or policy.delta,
    )


app = make_app()
