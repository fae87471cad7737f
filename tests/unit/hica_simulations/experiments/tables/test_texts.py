import pytest

from hica.study.sections import ClassSection
from hica_simulations.experiments.tables.texts import (
    of_another_class,
    with_findings,
    without_findings,
    words_dropped,
    words_shuffled,
)
from hica_simulations.scenario import load_scenario

LONG = "one two three four five six seven eight"


@pytest.fixture
def classes():
    return [
        ClassSection(name="a", prompts=[LONG, "alone"], findings=["x y z w", "p q"]),
        ClassSection(name="b", prompts=["a b c d"], findings=["p q"], healthy=True),
        ClassSection(name="c", prompts=["c"]),
    ]


def names(classes):
    return [(item.name, item.healthy) for item in classes]


def test_a_share_of_the_words_is_dropped_and_the_others_keep_their_order(classes):
    few, many = (words_dropped(classes, share, 0) for share in (0.25, 0.5))
    assert [len(text.split()) for text in few.classes[0].prompts] == [6, 1]
    assert [len(text.split()) for text in many.classes[0].prompts] == [4, 1]
    kept = [text.classes[0].prompts[0].split() for text in (few, many)]
    assert set(kept[1]) < set(kept[0]) < set(LONG.split())
    assert all(words == sorted(words, key=LONG.split().index) for words in kept)
    assert names(many.classes) == names(classes)


def test_a_text_that_two_classes_share_is_damaged_once(classes):
    for changed in (words_dropped(classes, 0.5, 0), words_shuffled(classes, 0)):
        assert changed.classes[0].findings[1] == changed.classes[1].findings[0]
        assert changed.findings["p q"] == changed.classes[1].findings[0]


def test_texts_that_become_the_same_are_listed_once():
    item = ClassSection(name="a", prompts=["a"], findings=["m m m", "m m m m"])
    assert words_dropped([item], 0.99, 0).classes[0].findings == ["m"]


@pytest.mark.parametrize("damage", [lambda c, s: words_dropped(c, 0.5, s), words_shuffled])
def test_damage_is_drawn_from_its_seed(classes, damage):
    assert damage(classes, 1) == damage(classes, 1) != damage(classes, 2)


def test_shuffled_texts_have_the_same_words(classes):
    prompt = words_shuffled(classes, 0).classes[0].prompts[0]
    assert prompt != LONG and sorted(prompt.split()) == sorted(LONG.split())


def test_classes_take_the_texts_of_the_next_one_and_stay_healthy_or_not(classes):
    changed = of_another_class(classes).classes
    assert names(changed) == names(classes)
    assert [item.prompts for item in changed] == [["a b c d"], ["c"], [LONG, "alone"]]
    assert [item.findings for item in changed] == [["p q"], [], ["x y z w", "p q"]]


def test_findings_are_taken_away_or_replaced_and_prompts_stay(classes):
    none, other = (
        without_findings(classes),
        with_findings(classes, {"a": ["new"], "b": [], "c": []}),
    )
    assert [item.findings for item in none.classes] == [[], [], []]
    assert [item.findings for item in other.classes] == [["new"], [], []]
    assert none.classes[0].prompts == other.classes[0].prompts == [LONG, "alone"]
    assert none.findings == other.findings == {}


def test_manifests_name_findings_in_the_new_words(study):
    path = study("breast_ultrasound")
    before = load_scenario(path)
    for changed in (
        words_shuffled(before.study.classes, 0),
        without_findings(before.study.classes),
    ):
        after = load_scenario(path, changes=changed.changes(before.simulation))
        assert after.study.classes == changed.classes
        old, new = (each.simulation.sites[-1].findings for each in (before, after))
        for column, terms in old.items():
            expected = {k: changed.findings[v] for k, v in terms.items() if changed.findings}
            assert new[column] == expected
        rest = [
            each.simulation.model_copy(
                update={
                    "sites": [s.model_copy(update={"findings": 0}) for s in each.simulation.sites]
                }
            )
            for each in (before, after)
        ]
        assert rest[0] == rest[1]
