import pytest
import torch

from hica.errors import CheckpointError, ConfigurationError
from hica_server.findings.language_model import PROMPT, LanguageModel, question
from hica_server.findings.model_folder import folder_sha256

LINES = ["1. Oval shape", "2. no mass", "3. Round shape", "4. oval shape"]


@pytest.mark.parametrize("chat", [False, True])
def test_every_class_is_asked_and_its_answer_read(study, save_model, chat):
    found = LanguageModel(str(save_model(*LINES, chat=chat))).findings(study, None)
    assert list(found) == study.class_names
    for findings, left_out in found.values():
        assert findings[:2] == ["oval shape", "round shape"]
        assert left_out[0] == ("2. no mass", "names what is absent")


def test_a_model_that_only_continues_is_read_to_its_first_empty_line(study, save_model):
    found = LanguageModel(str(save_model("oval shape", "", "round shape"))).findings(study, None)
    assert found["benign"].findings == ["oval shape"]
    chat = LanguageModel(str(save_model("oval shape", "", "round shape", chat=True)))
    assert chat.findings(study, None)["benign"].findings == ["oval shape", "round shape"]


def test_a_model_knows_what_it_is(save_model):
    folder = save_model(*LINES)
    model = LanguageModel(str(folder))
    assert (model.name, model.sha256) == ("little-model", folder_sha256(folder))


def test_a_model_that_gives_nothing_is_an_error_that_names_the_class(study, save_model):
    model = LanguageModel(str(save_model("no mass", "Here you are:")))
    with pytest.raises(ConfigurationError, match=r"class 'normal': little-model gave nothing") as e:
        model.findings(study, None)
    assert "'no mass\\nHere you are:'" in str(e.value)
    assert "--source template" in str(e.value)


def test_the_seed_decides_what_is_sampled_and_no_seed_draws_nothing(study, save_model):
    words, nouns = ("oval", "round", "dark", "bright"), ("shape", "border", "edge", "area", "line")
    lines = [f"{word} {noun}" for word in words for noun in nouns]
    model = LanguageModel(str(save_model(*lines, random=True)))
    before = torch.random.get_rng_state()
    one, again, two = (model.findings(study, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != two
    assert one["benign"] != one["malignant"]
    assert model._answer("x", None, "a") == model._answer("x", None, "b")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_answer_ends_where_the_context_does(study, save_model):
    length = len(question(study.classes[0], study.study.modality, 2).split())
    model = LanguageModel(str(save_model("oval shape", random=True, context=length + 12)))
    assert model._answer(question(study.classes[1], "x", 2), 0, "benign").count("\n") < 20


def test_a_question_that_does_not_fit_is_an_error(study, save_model):
    model = LanguageModel(str(save_model(*LINES, context=16)))
    with pytest.raises(
        CheckpointError, match=r"takes 16 tokens, and the question alone has .*longer"
    ):
        model.findings(study, None)


def test_the_question_names_class_modality_and_count(study):
    normal, benign, _ = study.classes
    assert "List 3 visual findings of benign in a chest X-ray image" in question(
        benign, "chest X-ray", 3
    )
    assert "of normal (healthy tissue) in a medical image" in question(normal, "", 3)
    assert "never what is absent" in PROMPT
