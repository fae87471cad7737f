import numpy as np
import pytest
import torch
from torch.nn import functional

from hica.errors import ConfigurationError
from hica.text.bank import orthonormal_map
from hica.towers.tiny import TinyTextTower
from hica_simulations.experiments.baselines import prompts
from hica_simulations.experiments.baselines.prompts import Prompts, prompts_of


def by_hand(tower, class_names, context, joint):
    """The tower's own layers, one class at a time, with the context put between their inputs."""
    rows = []
    for name in class_names:
        words = tower.embedding(tower.tokenize([name]))[0]  # START, the name, END
        inputs = torch.cat([words[:1], context, words[1:]])
        hidden = inputs * 128**0.5 + tower.position[: len(inputs)]
        mask = torch.full((len(inputs), len(inputs)), -torch.inf).double().triu(1)
        states = tower.transformer(hidden[None], mask=mask)[0]
        rows.append(functional.normalize(tower.projection(states.mean(dim=0)), dim=0))
    stacked = torch.stack(rows)
    centred = functional.normalize(stacked - stacked.mean(dim=0), dim=1)
    return functional.normalize(centred @ joint, dim=1)


def test_the_context_stands_between_start_and_name(prompted):
    prompts = prompted.prompts
    context = torch.randn(prompts.shape, generator=torch.Generator().manual_seed(3)).double()
    names = ["benign mass", "malignant", "normal tissue"]
    with torch.no_grad():
        expected = by_hand(prompts.tower, names, context, prompts.joint)
        np.testing.assert_allclose(prompts.classes(context), expected, atol=1e-10)


def test_the_tower_stays_what_it_is(prompted):
    tower = prompted.prompts.tower
    before = tower.embedding.weight.clone()
    prompted.prompts.classes(torch.ones(prompted.prompts.shape).double())
    assert torch.equal(tower.embedding.weight, before)
    assert not any(weight.requires_grad for weight in tower.parameters())


def test_a_tower_with_too_few_words_is_refused():
    tower = TinyTextTower(["a", "b"], seed=0)
    with pytest.raises(ConfigurationError, match="write longer prompts"):
        Prompts(tower, ["a", "b"], orthonormal_map(128, 8, 0), length=2)


def test_a_tower_without_word_vectors_is_refused():
    class Wordless(TinyTextTower):
        token_embedding = None

    with pytest.raises(ConfigurationError, match="no table of word vectors"):
        Prompts(Wordless(["a", "b"], seed=0), ["a", "b"], orthonormal_map(128, 8, 0))


def test_a_study_asked_for_again_has_its_tower_refined_once(toy_study, tmp_path, monkeypatch):
    refined = []

    def refine(study, texts):
        refined.append(study.study.seed)
        return TinyTextTower(["a", "b", "c", "d", "e", "round", "square"], seed=0)

    monkeypatch.setattr(prompts, "refined_text_tower", refine)
    monkeypatch.setattr(prompts, "_REFINED", {})
    first, again, other = (
        prompts_of(toy_study(*change), 8, tmp_path)
        for change in (("alignment.shots=1",), ("alignment.shots=2",), ("study.seed=5",))
    )
    assert first.tower is again.tower and other.tower is not first.tower
    assert refined == [toy_study().study.seed, 5]
