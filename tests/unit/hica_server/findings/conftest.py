"""A study, a command line, and small language models that recite what a test wants."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hica.study import Study, load_study
from hica_server.cli import main
from hica_server.findings.draft import Draft, Source

EXAMPLE = Path(__file__).parents[4] / "server" / "example_study.toml"
END = "<end>"
CHAT_TEMPLATE = "{{ messages[0]['content'] }} <answer>"


@pytest.fixture
def run_command(capsys):
    """Run `hica-server` and return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def study_file(tmp_path) -> Path:
    path = tmp_path / "study.toml"
    path.write_bytes(EXAMPLE.read_bytes())
    return path


@pytest.fixture
def study() -> Study:
    return load_study(EXAMPLE)


@pytest.fixture
def draft(study) -> Draft:
    """The study's own findings, read by somebody."""
    findings = {item.name: item.findings for item in study.classes}
    made = Draft.of(Source(kind="curated", date=date(2026, 1, 2)), findings)
    return made.model_copy(update={"reviewed_by": "A. Nowak"})


@pytest.fixture
def save_model(tmp_path) -> Callable[..., Path]:
    """Save a GPT-2 in the hub's layout that answers every question by the given lines.

    A token is a whole line, and what comes next depends on the last token alone: hidden states are
    its one-hot vector, as the only block adds zeros. `random` keeps the weights as they are drawn.
    """

    def save(*lines: str, chat: bool = False, random: bool = False, context: int = 256) -> Path:
        tokens = ["<unknown>", END, "-", "<answer>", *(f"{line}\n" for line in lines)]
        config = GPT2Config(
            vocab_size=len(tokens),
            n_positions=context,
            n_embd=len(tokens),
            n_layer=1,
            n_head=1,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=1,
        )
        model = GPT2LMHeadModel(config)
        if not random:
            _recite(model, len(tokens))
        folder = tmp_path / "little-model"
        model.save_pretrained(folder)
        tokenizer = _tokenizer(tokens)
        tokenizer.chat_template = CHAT_TEMPLATE if chat else None
        tokenizer.save_pretrained(folder)
        return folder

    return save


@torch.no_grad()
def _recite(model: GPT2LMHeadModel, count: int) -> None:
    """`-` and `<answer>` begin the lines; the last of them is followed by the end."""
    block = model.transformer.h[0]
    for layer in (block.attn.c_proj, block.mlp.c_proj, model.transformer.wpe):
        for weight in layer.parameters():
            weight.zero_()
    model.transformer.wte.weight.copy_(torch.eye(count))
    model.lm_head.weight.zero_()
    for token in range(2, count):
        following = 4 if token in (2, 3) else token + 1
        model.lm_head.weight[following if following < count else 1, token] = 50.0


def _tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unknown>", eos_token=END, bos_token=END
    )
