"""open_clip's pairs, in miniature: the same classes, a few channels wide."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast

from hica.errors import CheckpointError, ConfigurationError
from hica.images.cache import file_sha256
from hica.towers import load_image_tower, load_text_tower
from hica.towers.folders import folder_sha256

HALF = (0.5, 0.5, 0.5)
VISION = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PREPROCESS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "longest"}
CONFIGS = {
    "mini-vit": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "mini-average": {
        "embed_dim": 24,
        "vision_cfg": {**VISION, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": TEXT,
    },
    "mini-timm": {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
    "mini-coca": {
        "embed_dim": 24,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2},
        "text_cfg": TEXT,
    },
    "mini-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
}


@pytest.fixture(scope="module", autouse=True)
def configurations(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("open_clip")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch) -> None:
    """Folders of weights lie below the current one."""
    monkeypatch.chdir(tmp_path)


def local_folder(folder: Path, config: dict, state: dict[str, torch.Tensor]) -> str:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS})
    (folder / "open_clip_config.json").write_text(text)
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        folder / "open_clip_model.safetensors",
    )
    return f"local-dir:{folder.name}"


def pin(name: str) -> dict[str, str]:
    """The folder's hash, as a study has it."""
    folder = Path(name.removeprefix("local-dir:"))
    return {"sha256": folder_sha256(folder, folder / "open_clip_model.safetensors")}


@pytest.fixture
def pair(tmp_path) -> tuple[str, torch.nn.Module]:
    """A pair on disk, and open_clip's own model of it."""
    model = open_clip.create_model("mini-vit").eval()
    return local_folder(tmp_path / "pair", CONFIGS["mini-vit"], model.state_dict()), model


@torch.no_grad()
def test_image_is_open_clips_own(pair) -> None:
    name, model = pair
    tower = load_image_tower(name, **pin(name))
    images = torch.randn(2, 3, 32, 32)
    pooled, patches = tower(images)
    assert (tower.dim, tower.grid, tower.depth) == (24, 4, 3)
    assert torch.allclose(pooled, model.encode_image(images), atol=1e-5)
    model.visual.output_tokens = True
    assert torch.allclose(patches, model.visual(images)[1] @ model.visual.proj, atol=1e-5)


def test_transform_is_the_pairs_own_and_the_study_says_no_other(pair, tmp_path) -> None:
    transform = load_image_tower(pair[0], **pin(pair[0])).preprocess
    assert (transform.size, transform.resize, transform.interpolation) == (32, "longest", "bicubic")
    assert (transform.mean, transform.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    told = load_image_tower(pair[0], **pin(pair[0]), mean=(0.1, 0.2, 0.3)).sources
    assert (told["mean"], told["std"]) == ("study", f"open_clip_config.json of {pair[0]}")
    with pytest.raises(
        CheckpointError, match=r"model\.mean = 0\.5 .*mean = 0\.1 0\.2 0\.3: one of"
    ):
        load_image_tower(pair[0], **pin(pair[0]), mean=(0.5, 0.5, 0.5))


def test_a_folder_that_does_not_say_its_colours(pair, tmp_path) -> None:
    path = tmp_path / "pair" / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": CONFIGS["mini-vit"]}))
    with pytest.raises(
        CheckpointError,
        match=r"Write model\.mean and model\.std into the study.*open_clip's default",
    ) as error:
        load_image_tower(pair[0], **pin(pair[0]))
    assert "open_clip_config.json" not in str(error.value)
    tower = load_image_tower(pair[0], **pin(pair[0]), mean=HALF, std=HALF)
    assert tower.preprocess.mean == HALF and tower.sources["mean"] == "study"
    assert tower.sources["size"] == f"open_clip_config.json of {pair[0]}"
    assert tower.sources["resize"] == "open_clip's default"


def test_a_border_that_is_not_black(pair, tmp_path) -> None:
    path = tmp_path / "pair" / "open_clip_config.json"
    table = {"model_cfg": CONFIGS["mini-vit"], "preprocess_cfg": {**PREPROCESS, "fill_color": 127}}
    path.write_text(json.dumps(table))
    with pytest.raises(ConfigurationError, match=r"fill_color = 127.*borders are black"):
        load_image_tower(pair[0], **pin(pair[0]))


@torch.no_grad()
@pytest.mark.parametrize("name", ["mini-vit", "mini-average", "mini-timm"])
def test_parts_are_the_tower(name) -> None:
    tower = load_image_tower(name, seed=3)
    side = tower.preprocess.size
    images = torch.randn(2, 3, side, side)
    whole = tower(images)
    assert whole.patches.shape == (2, tower.grid**2, tower.dim)
    for last in range(tower.depth + 1):
        parts = tower.suffix(tower.prefix(images, last), last)
        assert torch.equal(parts.pooled, whole.pooled)
        assert torch.equal(parts.patches, whole.patches)


@torch.no_grad()
def test_timm_tower_of_a_pair_projects_image_and_patches() -> None:
    tower = load_image_tower("mini-timm", seed=3)
    model = open_clip.create_model("mini-timm").eval()
    model.visual.trunk.load_state_dict(tower.trunk.state_dict())
    model.visual.head.load_state_dict(tower.projection.state_dict())
    images = torch.randn(2, 3, 160, 160)
    tokens = model.visual.trunk.forward_features(images)[:, 1:]
    pooled, patches = tower(images)
    assert torch.allclose(pooled, model.encode_image(images), atol=1e-5)
    assert torch.allclose(patches, model.visual.head(tokens), atol=1e-5)


def test_drawn_weights_depend_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    one, two = load_image_tower("mini-vit", seed=3), load_image_tower("mini-vit", seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.fingerprint == two.fingerprint != load_image_tower("mini-vit", seed=4).fingerprint


def test_other_image_size() -> None:
    tower = load_image_tower("mini-vit", image_size=48)
    assert (tower.grid, tower.preprocess.size) == (6, 48)


def test_checkpoint_is_checked_and_loaded(tmp_path) -> None:
    model = open_clip.create_model("mini-vit").eval()
    path = tmp_path / "pair.pt"
    torch.save({"state_dict": model.state_dict()}, path)
    tower = load_image_tower(
        "mini-vit", checkpoint=path, sha256=file_sha256(path), mean=HALF, std=HALF
    )
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(tower(images).pooled, model.encode_image(images), atol=1e-5)
    text = load_text_tower(
        "same", image="mini-vit", checkpoint=path, sha256=file_sha256(path), vocabulary=[]
    )
    tokens = text.tokenize(["a mass"])
    assert torch.allclose(text(tokens), model.encode_text(tokens), atol=1e-5)
    with pytest.raises(CheckpointError, match="other weights than the study's"):
        load_image_tower("mini-vit", checkpoint=path, sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"pair\.pt: not weights of mini-average"):
        torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(1)}}, path)
        load_image_tower("mini-average", checkpoint=path)


@torch.no_grad()
@pytest.mark.parametrize("quick", [True, False])
def test_the_activation_is_that_of_the_tag(tmp_path, monkeypatch, quick) -> None:
    """OpenAI's weights have another activation than open_clip's model of the same name."""
    model = open_clip.create_model("mini-vit", force_quick_gelu=quick).eval()
    path = tmp_path / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    tag = {"hf_hub": "owner/name/", "mean": HALF, "std": HALF, "interpolation": "bilinear"}
    tag |= {"quick_gelu": True} if quick else {}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(path))
    tower = load_image_tower("mini-vit", pretrained="openai", sha256=file_sha256(path))
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(tower(images).pooled, model.encode_image(images), atol=1e-5)
    assert tower.preprocess.interpolation == "bilinear"


def test_folder_without_weights_or_configuration(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such folder; put the model"):
        load_image_tower("local-dir:nowhere")
    name = local_folder(tmp_path / "pair", CONFIGS["mini-vit"], {})
    (tmp_path / "pair" / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"pair: no weights in it; put one of open_clip_model"
    ):
        load_image_tower(name)


def test_unknown_model_says_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match="use tiny, timm/NAME, a name"):
        load_image_tower("ViT-Z-3")


def test_images_that_are_not_square(tmp_path) -> None:
    config = {**CONFIGS["mini-vit"], "vision_cfg": {**VISION, "image_size": [32, 64]}}
    model = open_clip.create_model("mini-vit", force_image_size=(32, 64))
    name = local_folder(tmp_path / "wide", config, model.state_dict())
    with pytest.raises(ConfigurationError, match="only square ones are supported"):
        load_image_tower(name, **pin(name))


@torch.no_grad()
def test_text_is_open_clips_own(pair) -> None:
    name, model = pair
    tower = load_text_tower("same", image=name, vocabulary=[])
    tokens = tower.tokenize(["a round mass", "clear lungs"])
    assert tokens.shape == (2, 12) and tower.dim == 24 and tower.causal and tower.pad_id == 0
    assert torch.allclose(tower(tokens), model.encode_text(tokens), atol=1e-5)
    assert tower.token_embedding.shape == (49408, 32)
    states = tower.token_states(tokens)
    end = tokens.argmax(dim=1)
    pooled = states[torch.arange(2), end] @ model.text_projection
    assert torch.allclose(pooled, model.encode_text(tokens), atol=1e-5)


def hugging_face_folder(folder: Path) -> tuple[str, torch.nn.Module]:
    """A pair with a BERT, as BiomedCLIP is, with its tokenizer."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "round", "mass", "clear", "lungs"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
    ).save_pretrained(folder)
    BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    ).save_pretrained(folder)
    config = {
        "embed_dim": 24,
        "vision_cfg": VISION,
        "text_cfg": {
            "hf_model_name": str(folder),
            "hf_tokenizer_name": str(folder),
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 10,
        },
    }
    name = local_folder(folder, config, {})
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
    return local_folder(folder, config, model.state_dict()), model


@torch.no_grad()
def test_text_of_a_hugging_face_encoder(tmp_path) -> None:
    name, model = hugging_face_folder(tmp_path / "bert")
    tower = load_text_tower(name, vocabulary=[])
    tokens = tower.tokenize(["round mass", "clear lungs round"])
    assert tokens.shape == (2, 10) and tower.dim == 24 and not tower.causal
    assert torch.allclose(tower(tokens), model.encode_text(tokens), atol=1e-5)
    assert tower.token_states(tokens).shape == (2, 10, 16)
    assert tower.token_embedding.shape == (9, 16)


def test_missing_tokenizer(tmp_path) -> None:
    name, _ = hugging_face_folder(tmp_path / "bert")
    for file in (tmp_path / "bert").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"its tokenizer.*put tokenizer\.json and"):
        load_text_tower(name, vocabulary=[])
