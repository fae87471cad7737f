from hica_client.audit import Event, append
from hica_client.review.desk import Desk
from hica_client.review.facts import facts


def test_before_anything_was_answered_nothing_has_left(desk):
    told = facts(desk)
    assert (told["site"], told["study"]) == ("north", "toy")
    assert told["left"]["entries"] == 0 and told["privacy"] is None and told["result"] is None


def test_what_left_is_what_the_audit_log_says(desk, site):
    append(site.audit_log, Event("message", "sent", kind="train.align", bytes=2_000_000))
    left = facts(desk)["left"]
    assert (left["entries"], left["size"]) == (1, "2 MB")
    assert left["kinds"] == [
        {"kind": "train.align", "sent": 1, "failed": 0, "refused": 0, "size": "2 MB"}
    ]


def test_a_record_that_cannot_be_read_is_said_and_the_rest_is_told(desk, site):
    site.audit_log.write_text("x\n")
    told = facts(desk)
    assert "audit.jsonl" in told["left"]["error"] and told["study"] == "toy"


def test_what_a_private_study_may_still_spend_is_told(site, toy_study):
    private = toy_study(
        "privacy.mechanism=dp-sgd",
        "privacy.epsilon=3.0",
        "privacy.delta=1e-5",
        "calibration.rounds=0",
        "alignment.centring=none",
    )
    limited = site.model_copy(update={"policy": site.policy.model_copy(update={"max_epsilon": 4})})
    told = facts(Desk(limited, private, "anna"))["privacy"]
    assert (told["epsilon"], told["left"], told["max_epsilon"]) == (0.0, 4.0, 4)
