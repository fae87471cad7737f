import pytest

from hica_simulations.experiments.tables import text_noise
from hica_simulations.experiments.tables.text_noise import AT_TEXTS, DAMAGES, OWN, TABLE


@pytest.mark.parametrize(
    "name",
    [
        "breast_ultrasound",
        "breast_lesions",
        "pneumonia",
        "pneumonia_kinds",
        "tuberculosis",
        "chest_xray",
        "phantoms",
    ],
)
def test_every_damage_is_done_from_both_starts(loaded, name):
    lines = loaded(text_noise, name)
    assert len(lines) == 2 * (1 + len(DAMAGES))
    own = lines[OWN]
    for damage in DAMAGES:
        mine, at_texts = lines[f"{OWN}: {damage}"], lines[f"{AT_TEXTS}: {damage}"]
        assert mine.study.classes == at_texts.study.classes != own.study.classes
        assert mine.study.class_names == own.study.class_names
        assert at_texts.study.alignment.bank_start == "text"
        assert mine.study.alignment == own.study.alignment
        assert f"{AT_TEXTS}: {damage}" in TABLE.against
    assert lines[f"{OWN}: no findings"].study.finding_names == []


def test_words_are_drawn_anew_with_every_seed(study):
    cells = text_noise.cells([study("pneumonia")], [5], [3, 4], [f"{OWN}: words shuffled"])
    one, other = (c.changes["classes"] for c in cells if c.labels["method"] != OWN)
    assert one != other


def test_a_study_that_starts_at_its_texts_has_one_start(loaded):
    assert not any(name.startswith(AT_TEXTS) for name in loaded(text_noise, "audit"))
