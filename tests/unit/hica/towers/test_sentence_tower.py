"""Sentence encoders in a folder of the hub's layout, in miniature."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from hica.errors import ConfigurationError, WeightsError
from hica.hub import ELSEWHERE
from hica.towers import load_text_tower
from hica.towers.folders import folder_sha256

SENTENCES = ["a small mass", "a bone", "a small bone in a mass in a mass"]
SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "weights"


@pytest.fixture
def folder(tmp_path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "small", "mass", "bone", "in"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    path = tmp_path / "mini"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=16,
        )  # fmt: skip
        BertModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    steps = [("", "models.Transformer"), ("1_Pooling", "models.Pooling"), ("2", "models.Normalize")]
    write(path / "modules.json", [{"path": p, "type": t} for p, t in steps])
    write(path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    return path


def write(path: Path, table) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table))


def tower(folder: Path, **named):
    return load_text_tower(f"hf:{folder.name}", vocabulary=[], weights=folder.parent, **named)


def expected(folder: Path, texts: list[str], pooling: str, longest: int = 16) -> torch.Tensor:
    """As sentence-transformers documents it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
@torch.no_grad()
def test_embeddings_are_those_of_the_library(folder, mode, pooling):
    write(folder / "1_Pooling" / "config.json", {f"pooling_mode_{mode}": True})
    found = tower(folder)
    torch.testing.assert_close(
        found(found.tokenize(SENTENCES)), expected(folder, SENTENCES, pooling), atol=1e-5, rtol=0
    )


@pytest.mark.real_data
@pytest.mark.skipif(not (SHARED / "minilm-l6").is_dir(), reason="../shared/data is absent")
@torch.no_grad()
def test_minilm_is_the_librarys():
    found = tower(SHARED / "minilm-l6")
    texts = ["The heart is enlarged.", "effusion " * 600]
    torch.testing.assert_close(
        found(found.tokenize(texts)),
        expected(SHARED / "minilm-l6", texts, "mean", 256),
        atol=1e-5,
        rtol=0,
    )


def test_the_pin_holds_how_sentences_are_pooled(folder):
    weights = folder / "model.safetensors"
    pin = folder_sha256(folder, weights)
    tower(folder, text_sha256=pin, pinned=True)
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    with pytest.raises(WeightsError, match="other weights"):
        tower(folder, text_sha256=pin)
    with pytest.raises(WeightsError, match="text_sha256 = "):
        tower(folder, pinned=True)


@pytest.mark.parametrize(
    ("file", "table", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by max_tokens"),
        ("1_Pooling/config.json", {}, "pools by nothing"),
        ("1_Pooling/config.json", [], "expected a JSON object"),
        ("modules.json", {"a": 1}, "expected a list of steps"),
        ("modules.json", [{"path": "2_Dense", "type": "models.Dense"}], "a step 'Dense'"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "puts words before each sentence",
        ),
    ],
)
def test_what_is_not_offered_is_said(folder, file, table, words):
    write(folder / file, table)
    with pytest.raises(WeightsError, match=words):
        tower(folder)


def test_code_and_pickles_are_never_read(folder):
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {**config, "auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(WeightsError, match="auto_map"):
        tower(folder)
    write(folder / "config.json", config)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"put one of model\.safetensors"):
        tower(folder)


def test_a_pooling_that_is_named_and_missing(folder):
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no such file, but modules\.json names it"):
        tower(folder)


def test_a_second_hash_of_a_pair_is_refused():
    with pytest.raises(ConfigurationError, match=r"model\.text_sha256"):
        load_text_tower("tiny", text_sha256="0" * 64, vocabulary=[])


def test_of_folders_only_the_pooling_is_fetched():
    from fnmatch import fnmatch

    def left_out(path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in ELSEWHERE)

    assert not left_out("1_Pooling/config.json") and not left_out("config.json")
    assert all(map(left_out, ["onnx/model.json", "1_Dense/config.json", "2_Dense/config.json"]))
