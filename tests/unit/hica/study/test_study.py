import datetime
from pathlib import Path

import pytest
import tomli_w

from hica.errors import ConfigurationError
from hica.study import Study, apply_overrides, changed, load_study, merged, validated

MINIMAL = {
    "study": {"name": "toy"},
    "classes": [
        {"name": "benign", "prompts": ["a smooth oval mass"]},
        {"name": "malignant", "prompts": ["a spiculated mass"], "findings": ["spiculated margin"]},
    ],
}


def refusal(table: dict) -> str:
    with pytest.raises(ConfigurationError) as error:
        validated(Study, table, "study.toml")
    return str(error.value)


def test_a_minimal_study_is_complete() -> None:
    study = validated(Study, MINIMAL, "study.toml")
    assert study.class_names == ["benign", "malignant"]
    assert study.finding_names == ["spiculated margin"]
    assert study.alignment.shots == 20


def test_an_unknown_key_is_refused_and_the_known_ones_are_named() -> None:
    message = refusal({**MINIMAL, "alignment": {"margn": 0.3}})
    assert "study.toml: alignment.margn: unknown key" in message
    assert "margin" in message.split("known keys:")[1]


def test_an_unknown_key_in_a_class_is_refused() -> None:
    classes = [MINIMAL["classes"][0], {**MINIMAL["classes"][1], "prompt": []}]
    assert "classes.1.prompt: unknown key" in refusal({**MINIMAL, "classes": classes})


def test_an_unknown_section_is_refused() -> None:
    assert "study.toml: privcy: unknown key" in refusal({**MINIMAL, "privcy": {}})


@pytest.mark.parametrize("prompts", [[], ["  "]])
def test_a_class_without_prompts_is_refused_with_an_example(prompts: list[str]) -> None:
    classes = [MINIMAL["classes"][0], {"name": "normal", "prompts": prompts}]
    message = refusal({**MINIMAL, "classes": classes})
    assert "'normal' has no prompts" in message
    assert "prompts = [" in message


def test_a_checkpoint_without_hash_is_refused() -> None:
    message = refusal({**MINIMAL, "model": {"image": "timm/x", "checkpoint": "w.safetensors"}})
    assert "sha256sum w.safetensors" in message


def test_two_classes_of_one_name_are_refused() -> None:
    assert "different names" in refusal({**MINIMAL, "classes": [MINIMAL["classes"][0]] * 2})


def test_sam_without_a_checkpoint_is_refused() -> None:
    assert "regions.checkpoint" in refusal({**MINIMAL, "regions": {"method": "sam"}})


@pytest.mark.parametrize("train", ["last-0", "half", "last-"])
def test_an_unknown_adaptation_is_refused(train: str) -> None:
    assert "model.train" in refusal({**MINIMAL, "model": {"train": train}})


def test_overrides_are_read_as_toml_and_leave_the_table_alone() -> None:
    table = {"alignment": {"margin": 0.1}}
    found = apply_overrides(
        table, ["alignment.margin=0.3", "model.train=last-2", "text.epochs=0", "x.flag=true"]
    )
    assert found["alignment"]["margin"] == 0.3
    assert found["model"]["train"] == "last-2"
    assert found["text"]["epochs"] == 0
    assert found["x"]["flag"] is True
    assert table == {"alignment": {"margin": 0.1}}


@pytest.mark.parametrize("override", ["alignment.margin", "=3", "a..b=1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected section\.key=value"):
        apply_overrides({}, [override])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="name is not a table"):
        apply_overrides({"study": {"name": "x"}}, ["study.name.first=1"])


def test_settings_are_changed_key_by_key_and_the_last_change_counts() -> None:
    table = {"study": {"name": "x"}, "simulation": {"labels": {"a": "b"}}, "classes": [1]}
    labels = {"simulation": {"labels": {"c": "d"}}}
    found = merged(table, {"study": {"seed": 1}}, labels, {"study": {"seed": 2}, "classes": [2]})
    assert found == {"study": {"name": "x", "seed": 2}, **labels, "classes": [2]}
    assert table["study"] == {"name": "x"}


def test_a_changed_study_is_checked_anew() -> None:
    study = validated(Study, MINIMAL, "a")
    assert changed(study, {"alignment": {"shots": 3}}).alignment.shots == 3
    assert study.alignment.shots != 3
    with pytest.raises(ConfigurationError, match=r"study: alignment.shot: unknown key"):
        changed(study, {"alignment": {"shot": 3}})


def test_the_hash_depends_on_content_not_on_spelling() -> None:
    study = validated(Study, MINIMAL, "a")
    spelt_out = validated(Study, study.model_dump(mode="json"), "b")
    other = validated(Study, {**MINIMAL, "study": {"name": "toy", "seed": 1}}, "c")
    assert study.sha256 == spelt_out.sha256
    assert study.sha256 != other.sha256


def test_a_missing_file_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: no such file"):
        load_study(tmp_path / "nowhere.toml")
    (tmp_path / "broken.toml").write_text("[study\nname=")
    with pytest.raises(ConfigurationError, match=r"broken\.toml: not valid TOML"):
        load_study(tmp_path / "broken.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_mark_that_windows_editors_put_before_a_text_is_passed_over(tmp_path, encoding):
    (tmp_path / "study.toml").write_text(tomli_w.dumps(MINIMAL), encoding=encoding)
    assert load_study(tmp_path / "study.toml") == validated(Study, MINIMAL, "study.toml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_named_as_such(tmp_path, encoding):
    (tmp_path / "study.toml").write_bytes('name = "ä"'.encode(encoding))
    with pytest.raises(ConfigurationError, match=r"study\.toml: not UTF-8.*save it anew"):
        load_study(tmp_path / "study.toml")


def test_a_hash_may_be_written_in_capitals():
    model = {"checkpoint": "w", "sha256": "AB" * 32}
    study = validated(Study, {**MINIMAL, "model": model}, "study.toml")
    small = {**MINIMAL, "model": {**model, "sha256": "ab" * 32}}
    assert study.sha256 == validated(Study, small, "study.toml").sha256


def test_a_text_is_asked_for_in_words():
    message = refusal({**MINIMAL, "model": {"train": "half"}})
    assert 'give "adapter", "lora", "full" or "last-N"' in message and "^" not in message


def test_more_rounds_than_can_be_listed_are_refused():
    assert "rounds together, the most is" in refusal({**MINIMAL, "alignment": {"rounds": 10**9}})


def test_a_date_is_no_reason_to_lose_the_table():
    date = datetime.date(2026, 1, 1)
    assert apply_overrides({"a": {"b": date}}, ["a.c=1"]) == {"a": {"b": date, "c": 1}}


# --- Privacy -------------------------------------------------------------------------------------

DP_SGD = {"mechanism": "dp-sgd", "epsilon": 3.0, "delta": 1e-5}
PROTOTYPES = {"mechanism": "prototypes", "epsilon": 3.0, "delta": 1e-5}
NO_INTERCEPTS = {"calibration": {"rounds": 0}}


def test_a_private_study_is_taken() -> None:
    study = validated(Study, {**MINIMAL, **NO_INTERCEPTS, "privacy": DP_SGD}, "study.toml")
    assert study.privacy.is_private
    assert not validated(Study, MINIMAL, "study.toml").privacy.is_private


@pytest.mark.parametrize("name", ["epsilon", "delta"])
def test_a_budget_has_no_default(name: str) -> None:
    privacy = {key: value for key, value in DP_SGD.items() if key != name}
    message = refusal({**MINIMAL, **NO_INTERCEPTS, "privacy": privacy})
    assert f"needs privacy.{name}" in message and "no safe default" in message


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("alignment", {"contrast": "batch"}, 'set contrast = "bank"'),
        ("alignment", {"centring": "site"}, 'set alignment.centring = "global" or "none"'),
        ("calibration", {"rounds": 1}, "set calibration.rounds = 0"),
    ],
)
def test_what_would_leave_without_noise_is_refused(section: str, values: dict, words: str) -> None:
    table = {**MINIMAL, **NO_INTERCEPTS, "privacy": DP_SGD}
    assert words in refusal({**table, section: values})


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("pretraining", {"rounds": 1}, "set pretraining.rounds = 0"),
        ("alignment", {"train_text_bank": False}, "set alignment.train_text_bank = true"),
        ("alignment", {"bank_start": "text"}, 'alignment.bank_start = "prototypes"'),
    ],
)
def test_prototypes_need_a_bank_to_go_to(section: str, values: dict, words: str) -> None:
    table = {**MINIMAL, **NO_INTERCEPTS, "pretraining": {"rounds": 0}, "privacy": PROTOTYPES}
    validated(Study, table, "study.toml")
    assert words in refusal({**table, section: values})


def test_noise_is_shared_out_only_where_nobody_sees_a_site_s_own() -> None:
    message = refusal({**MINIMAL, "privacy": {"noise": "distributed"}})
    assert "set privacy.secure_aggregation = true" in message


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("federation", {"aggregation": "krum"}, 'set aggregation = "mean"'),
        ("model", {"train": "lora"}, 'set train = "adapter"'),
    ],
)
def test_what_needs_single_updates_is_no_secure_sum(section: str, values: dict, words: str) -> None:
    table = {**MINIMAL, "privacy": {"secure_aggregation": True}}
    validated(Study, table, "study.toml")
    assert words in refusal({**table, section: values})
