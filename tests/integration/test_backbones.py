"""Models in the hub's own layout, small and drawn, load by name; embeddings are the library's own.

Each is written by the reference library's own function and named in a `study.toml`, and nothing is
added to its folder.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import pytest
import sentencepiece
import timm
import torch
import transformers
from open_clip.push_to_hf_hub import save_for_hf as save_open_clip
from timm.models import save_for_hf as save_timm
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from hica.errors import ConfigurationError, HicaError
from hica.study import load_study
from hica.text.from_study import refined_text_tower
from hica.towers import ImageTower
from hica.towers.adaptation import adapt
from hica.towers.folders import folder_sha256
from hica.towers.from_study import adapted_tower

CPU = torch.device("cpu")
TEXTS = ["a round mass", "clear lungs"]
WORDS = ["[PAD]", "[UNK]", "<s>", "</s>", "a", "round", "mass", "clear", "lungs", "bone"]
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SMALL_TEXT = {**TEXT, "vocab_size": len(WORDS), "hf_tokenizer_name": "owner/tokenizer"}
STUDY = """
[study]
name = "weights"
[model]
{model}
[[classes]]
name = "round"
prompts = ["a round mass"]
[[classes]]
name = "clear"
prompts = ["clear lungs"]
[text]
epochs = 0
"""


@dataclass(frozen=True)
class Reference:
    """A folder of the hub's layout and what the library that wrote it makes of images and texts."""

    name: str
    weights: str
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor] | None = None


def embedding(found) -> Tensor:
    return found if isinstance(found, Tensor) else found.pooler_output


def word_tokenizer(folder: Path, **names: object) -> transformers.PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", **special, **names
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


# --- transformers ---------------------------------------------------------------------------------

HF_TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 10,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
HF_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
}


def of_transformers(folder: Path, kind: str, shards: bool = False, half: bool = False) -> Reference:
    if kind == "CLIP":
        config = transformers.CLIPConfig(
            text_config=HF_TEXT, vision_config={**HF_VISION, "image_size": 32}, projection_dim=12
        )
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        word_tokenizer(folder)
    elif kind == "Siglip":
        config = transformers.SiglipConfig(
            text_config={**HF_TEXT, "projection_size": 16},
            vision_config={**HF_VISION, "image_size": 32},
        )
        processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
        word_tokenizer(folder, model_input_names=["input_ids"])
        lines = json.loads((folder / "tokenizer_config.json").read_text())
        lines["tokenizer_class"] = "PreTrainedTokenizerFast"  # the hub's is sentencepiece
        (folder / "tokenizer_config.json").write_text(json.dumps(lines))
    else:
        text = {**HF_TEXT, "vocab_size": 300, "projection_size": 16}
        config = transformers.Siglip2Config(
            text_config=text, vision_config={**HF_VISION, "num_patches": 16}
        )
        processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
        vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
        letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
        transformers.Siglip2Tokenizer(
            vocab={word: i for i, word in enumerate([*vocabulary, *letters])}, merges=[]
        ).save_pretrained(folder)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    if half:
        model = model.half()
    model.save_pretrained(folder, **({"max_shard_size": "20kB"} if shards else {}))
    model = model.float()
    processor.save_pretrained(folder)

    def images(pixels: Tensor) -> Tensor:
        if kind != "Siglip2":
            return embedding(model.get_image_features(pixels))
        cells = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3)
        return embedding(
            model.get_image_features(
                pixel_values=cells.flatten(1, 2),
                pixel_attention_mask=torch.ones(len(pixels), 16, dtype=torch.long),
                spatial_shapes=torch.tensor([[4, 4]] * len(pixels)),
            )
        )

    def texts(_: Tensor) -> Tensor:
        own = transformers.AutoTokenizer.from_pretrained(folder)
        tokens = own(
            TEXTS, padding="max_length", max_length=10, truncation=True, return_tensors="pt"
        )
        tokens.pop("token_type_ids", None)
        return embedding(model.get_text_features(**tokens))

    weights = "model.safetensors" + (".index.json" if shards else "")
    return Reference(f"hf:{folder.name}", weights, images, texts)


# --- open_clip ------------------------------------------------------------------------------------


class NoTokenizer:
    """CLIP's own tokenizer comes with open_clip."""

    def save_pretrained(self, folder: Path) -> None:
        pass


def of_open_clip(folder: Path, config: dict, prefix: str = "local-dir:", **files) -> Reference:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model = open_clip.create_model(
        f"local-dir:{folder}", load_weights=False, pretrained_text=False
    ).eval()
    tokenizer = files.get("tokenizer", NoTokenizer())
    safe = files.get("safe", True)
    save_open_clip(model, tokenizer, config, folder, safe_serialization=safe)
    weights = "open_clip_model.safetensors" if safe else "open_clip_pytorch_model.bin"
    return Reference(
        f"{prefix}{folder.name}",
        weights,
        lambda images: model.encode_image(images, normalize=False),
        lambda tokens: model.encode_text(tokens, normalize=False),
    )


def pair(vision: dict, text: dict = TEXT, **more: object) -> dict:
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **more}


def on_timm(name: str, size: int, pool: str = "", projection: str | None = "linear") -> dict:
    return {
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": projection,
        "image_size": size,
    }


OPEN_CLIP = {
    "ViT-B-32, OpenAI's": pair(VISION, quick_gelu=True),
    "RN50": pair(
        {"image_size": 64, "layers": [1] * 4, "width": 8, "head_width": 32, "patch_size": None},
        quick_gelu=True,
    ),
    "CoCa": pair(
        {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {**TEXT, "embed_cls": True, "output_tokens": True},
        multimodal_cfg={**TEXT, "attn_pooler_heads": 2},
        custom_text=True,
    ),
    "EVA02": pair(on_timm("eva02_tiny_patch14_224", 224, "token", None), custom_text=True),
    "MobileCLIP-S": pair(
        on_timm("fastvit_t8", 64, "avg", None), {**TEXT, "no_causal_mask": True}, custom_text=True
    ),
    "ConvNeXt": pair(on_timm("test_convnext", 64)),
    "ViT of timm": pair(on_timm("test_vit", 160)),
}
WITH_TOKENIZER = {
    "SigLIP": pair(
        on_timm("test_vit", 160, "map", "none"),
        {
            **SMALL_TEXT,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
        init_logit_bias=-10,
        custom_text=True,
    )
    | {"embed_dim": 64},
    "CLIPA": pair(
        {
            **VISION,
            "no_ln_pre": True,
            "pool_type": "avg",
            "final_ln_after_pool": True,
            "pos_embed_type": "sin_cos_2d",
        },
        {
            **SMALL_TEXT,
            "pool_type": "last",
            "no_causal_mask": True,
            "tokenizer_kwargs": {"strip_sep_token": True},
        },
    ),
}


def biomed_clip(folder: Path, config_json: bool = False) -> Reference:
    """BiomedCLIP's files: configuration, a .bin, a tokenizer, and no config.json."""
    folder.mkdir()
    elsewhere = folder.parent / "bert"
    bert = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    bert.save_pretrained(elsewhere)
    text = {
        "hf_model_name": str(elsewhere),
        "hf_tokenizer_name": str(elsewhere),
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 10,
    }
    config = pair(on_timm("test_vit", 160), text)
    made = of_open_clip(folder, config, safe=False, tokenizer=word_tokenizer(elsewhere))
    table = json.loads((folder / "open_clip_config.json").read_text())
    name = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
    table["model_cfg"]["text_cfg"] |= {"hf_model_name": name, "hf_tokenizer_name": name}
    (folder / "open_clip_config.json").write_text(json.dumps(table))
    if config_json:
        bert.save_pretrained(folder)
    return made


# --- timm -----------------------------------------------------------------------------------------


def of_timm(folder: Path, name: str, **arguments: object) -> Reference:
    model = timm.create_model(name, num_classes=3, **arguments).eval()
    save_timm(model, folder, safe_serialization=True)
    model.reset_classifier(0)
    return Reference(f"hf:{folder.name}", "model.safetensors", model)


ALL: dict[str, Callable[[Path], Reference]] = {
    "CLIP of transformers": lambda folder: of_transformers(folder, "CLIP"),
    "CLIP in parts": lambda folder: of_transformers(folder, "CLIP", shards=True),
    "CLIP in float16": lambda folder: of_transformers(folder, "CLIP", half=True),
    "SigLIP of transformers": lambda folder: of_transformers(folder, "Siglip"),
    "SigLIP 2 of transformers": lambda folder: of_transformers(folder, "Siglip2"),
    **{
        name: lambda folder, config=config: of_open_clip(folder, config)
        for name, config in OPEN_CLIP.items()
    },
    **{
        name: lambda folder, config=config: of_open_clip(
            folder, config, tokenizer=word_tokenizer(folder)
        )
        for name, config in WITH_TOKENIZER.items()
    },
    "open_clip by hf:": lambda folder: of_open_clip(folder, pair(VISION), "hf:"),
    "BiomedCLIP": biomed_clip,
    "BiomedCLIP with a config.json": lambda folder: biomed_clip(folder, config_json=True),
    "ViT": lambda folder: of_timm(folder, "test_vit"),
    "ViT at another size": lambda folder: of_timm(folder, "test_vit", img_size=96),
    "ViT with registers": lambda folder: of_timm(folder, "test_vit2"),
    "DeiT with two heads": lambda folder: of_timm(folder, "deit_tiny_distilled_patch16_224"),
    "ConvNeXt of timm": lambda folder: of_timm(folder, "test_convnext"),
    "ResNet of timm": lambda folder: of_timm(folder, "test_resnet"),
}
HEAVY: dict[str, Callable[[Path], Reference]] = {
    "Swin": lambda folder: of_timm(folder, "swin_tiny_patch4_window7_224"),
    "DINOv2 with registers": lambda folder: of_timm(folder, "vit_small_patch14_reg4_dinov2"),
    "MobileCLIP-B": lambda folder: of_open_clip(
        folder, pair(on_timm("vit_base_mci_224", 224, "token", None), custom_text=True)
    ),
}
SLOW = {
    "EVA02",
    "MobileCLIP-S",
    "DeiT with two heads",
    "CLIP in parts",
    "CLIP in float16",
    "open_clip by hf:",
    "ViT of timm",
    "BiomedCLIP with a config.json",
    "ConvNeXt of timm",
    "ResNet of timm",
}
"""Kin of others that are quick."""
EVERY = [
    *(pytest.param(name, marks=[pytest.mark.matrix] if name in SLOW else []) for name in ALL),
    *(pytest.param(name, marks=pytest.mark.matrix) for name in HEAVY),
]
QUICK_WAYS = {
    ("CLIP of transformers", "lora"),
    ("SigLIP 2 of transformers", "last-1"),
    ("CoCa", "lora"),
    ("RN50", "full"),
    ("ConvNeXt", "lora"),
}


def model_lines(made: Reference, folder: Path, **more: object) -> dict[str, object]:
    """What `[model]` says of a folder."""
    lines = {"image": made.name, "sha256": folder_sha256(folder, folder / made.weights)}
    return lines | ({"text": "same"} if made.text else {}) | more


def load(root: Path, lines: dict[str, object]) -> tuple[ImageTower, object]:
    """Image and text tower of a `study.toml`, with weights below a folder."""
    written = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
    (root / "study.toml").write_text(STUDY.format(model=written))
    study = load_study(root / "study.toml")
    tower = adapted_tower(study, root / "weights", CPU).tower
    text = refined_text_tower(study, root / "weights") if "text" in lines else None
    return tower, text


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path


@torch.no_grad()
@pytest.mark.parametrize("case", EVERY)
def test_embeddings_are_the_librarys_own(root, case) -> None:
    folder = root / "weights" / "model"
    made = {**ALL, **HEAVY}[case](folder)
    tower, text = load(root, model_lines(made, folder))
    side = tower.preprocess.size
    images = torch.randn(2, 3, side, side)
    encoded = tower(images)
    expected = made.image(images)
    assert torch.allclose(encoded.pooled, expected, atol=1e-5)
    assert encoded.patches.shape == (2, tower.grid**2, tower.dim)
    assert encoded.patches.isfinite().all()
    for last in (0, 1, tower.depth):
        parts = tower.suffix(tower.prefix(images, last), last)
        assert torch.allclose(parts.pooled, expected, atol=1e-5)
    if made.text is not None:
        tokens = text.tokenize(TEXTS)
        assert torch.allclose(text(tokens), made.text(tokens), atol=1e-5)
        assert text.token_states(tokens).shape[:2] == tokens.shape
        assert text.dim == tower.dim


WAYS = [
    pytest.param(case, train, marks=[] if (case, train) in QUICK_WAYS else pytest.mark.matrix)
    for case in (
        "CLIP of transformers",
        "SigLIP 2 of transformers",
        *list(OPEN_CLIP)[1:4],
        "ConvNeXt",
    )
    for train in ("adapter", "last-1", "lora", "full")
]


@pytest.mark.parametrize(("case", "train"), WAYS)
def test_every_way_of_training_works_or_is_refused_in_words(root, case, train) -> None:
    folder = root / "weights" / "model"
    made = ALL[case](folder)
    tower, _ = load(root, model_lines(made, folder, text="tiny"))
    if (case, train) == ("ConvNeXt", "lora"):
        with pytest.raises(ConfigurationError, match="neither attention nor 1×1 convolutions"):
            adapt(tower, train, lora_rank=2)
        return
    adapted = adapt(tower, train, lora_rank=2)
    side = tower.preprocess.size
    pixels = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    cells = torch.ones(2, 1, tower.grid, tower.grid)
    pooled, regions = adapted(adapted.frozen(pixels, cells), cells)
    (pooled.square().sum() + regions.square().sum()).backward()
    trained = adapted.trainable()
    assert trained and any(weight.grad is not None for weight in trained.values())


def test_two_sites_with_other_paths_have_one_tower(root, tmp_path) -> None:
    """The hash of a tower says nothing of the place of its folder."""
    found = set()
    for case in ("ViT-B-32, OpenAI's", "CLIP of transformers"):
        torch.manual_seed(1)
        made = ALL[case](root / "weights" / "model")
        towers = set()
        for place in ("here", "there/deeper"):
            site = tmp_path / place
            (site / "weights" / "own").mkdir(parents=True, exist_ok=True)
            for file in (root / "weights" / "model").iterdir():
                (site / "weights" / "own" / file.name).write_bytes(file.read_bytes())
            (site / "weights" / "own" / "README.md").write_text(place)
            lines = model_lines(made, site / "weights" / "own")
            lines["image"] = f"{made.name.partition(':')[0]}:own"
            towers.add((lines["sha256"], load(site, lines)[0].fingerprint))
        assert len(towers) == 1
        found |= towers
        for file in (root / "weights" / "model").iterdir():
            file.unlink()
    assert len(found) == 2


def clip(root: Path) -> tuple[Path, dict[str, object]]:
    folder = root / "weights" / "model"
    made = of_transformers(folder, "CLIP")
    return folder, model_lines(made, folder)


def changed(path: Path, **entries: object) -> None:
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, **entries}))


@pytest.mark.parametrize("change", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_the_one_that_is_pinned(root, change) -> None:
    folder, lines = clip(root)
    with (folder / change).open("ab") as file:
        file.write(b" ")
    with pytest.raises(HicaError, match="these are other weights than the study's"):
        load(root, lines)


def test_the_text_side_is_held_against_the_pin_too(root) -> None:
    folder, lines = clip(root)
    load(root, lines)
    with (folder / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(HicaError, match="these are other weights than the study's"):
        refined_text_tower(load_study(root / "study.toml"), root / "weights")


def test_a_folder_that_is_not_pinned_says_the_line_that_pins_it(root) -> None:
    _, lines = clip(root)
    pin = lines.pop("sha256")
    with pytest.raises(HicaError, match=f'not pinned.* add to .model.: sha256 = "{pin}"'):
        load(root, lines)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"do_rescale": False}, "pixels that are not scaled to 0..1"),
        ({"do_normalize": False}, "colours that are not normalised"),
        ({"resample": 0}, "resample = 0: another than bilinear"),
        ({"do_resize": False}, "images that are not resized"),
        ({"do_center_crop": False}, "images that are not square"),
        ({"size": {"shortest_edge": 40}}, "size 40, crop_size 32: a border that is cut off"),
        ({"image_mean": [0.5]}, "image_mean: expected three numbers"),
        ({"image_std": [0, 1, 1]}, "image_std: expected three numbers"),
        (
            {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
            "its images have 16 pixels by preprocessor_config.json, and 32 by config.json",
        ),
    ],
)
def test_a_transform_that_is_not_offered(root, entries, words) -> None:
    folder, lines = clip(root)
    changed(folder / "preprocessor_config.json", **entries)
    lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    with pytest.raises(HicaError, match=words):
        load(root, lines)


def test_a_folder_that_does_not_say_its_transform_asks(root) -> None:
    folder, lines = clip(root)
    (folder / "preprocessor_config.json").unlink()
    lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    with pytest.raises(
        HicaError, match=r"has no preprocessor_config\.json; |, or write model\.mean"
    ):
        load(root, lines)
    half = [0.5, 0.5, 0.5]
    assert load(root, {**lines, "mean": half, "std": half})[0].sources["mean"] == "study"


def test_the_older_form_of_a_processor_is_read(root) -> None:
    folder, lines = clip(root)
    changed(folder / "preprocessor_config.json", size=32, crop_size=32)
    lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    preprocess = load(root, lines)[0].preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == (
        32,
        "shortest",
        "bicubic",
    )


@torch.no_grad()
def test_another_image_size_resamples_positions_as_the_library_does(root) -> None:
    folder = root / "weights" / "model"
    of_transformers(folder, "CLIP")
    lines = {
        "image": "hf:model",
        "sha256": folder_sha256(folder, folder / "model.safetensors"),
        "image_size": 48,
        "mean": [0.48145466, 0.4578275, 0.40821073],
    }
    changed(folder / "preprocessor_config.json", size=48, crop_size=48)
    lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    tower, _ = load(root, lines)
    images = torch.randn(2, 3, 48, 48)
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    expected = embedding(model.get_image_features(images, interpolate_pos_encoding=True))
    assert tower.grid == 6 and torch.allclose(tower(images).pooled, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "entries", "words"),
    [
        ("config.json", {"model_type": "blip"}, "model_type = 'blip'.*clip, siglip, siglip2"),
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map: names code"),
        ("config.json", {"projection_dim": 13}, "cannot load this clip model|of another shape"),
    ],
)
def test_a_configuration_that_cannot_be_used(root, file, entries, words) -> None:
    folder, lines = clip(root)
    changed(folder / file, **entries)
    lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    with pytest.raises(HicaError, match=words) as error:
        load(root, lines)
    assert len(str(error.value)) < 1000


def test_weights_that_are_broken_or_not_whole(root) -> None:
    from safetensors.torch import load_file, save_file

    folder, lines = clip(root)
    whole = load_file(folder / "model.safetensors")

    def refused(state: dict[str, Tensor]) -> str:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        pinned = {**lines, "sha256": folder_sha256(folder, folder / "model.safetensors")}
        with pytest.raises(HicaError) as error:
            load(root, pinned)
        return str(error.value)

    bad = {**whole, "visual_projection.weight": whole["visual_projection.weight"] * torch.nan}
    assert "visual_projection.weight: NaN or infinite" in refused(bad)
    some = {key: value for key, value in whole.items() if "layers.1" not in key}
    words = refused(some)
    assert "missing: " in words and len(words) < 1000
    assert "unexpected: own.weight" in refused({**whole, "own.weight": torch.zeros(1)})


@pytest.mark.parametrize("left", ["nothing", "no weights", "no tokenizer"])
def test_a_folder_that_is_not_whole(root, left) -> None:
    folder, lines = clip(root)
    gone = {"nothing": "*", "no weights": "*.safetensors", "no tokenizer": "tokenizer*"}[left]
    for file in folder.glob(gone):
        file.unlink()
    if left == "nothing":
        folder.rmdir()
    elif left == "no tokenizer":
        lines["sha256"] = folder_sha256(folder, folder / "model.safetensors")
    words = {
        "nothing": "no such folder; put the model's folder there",
        "no weights": "no weights in it; put one of model.safetensors",
        "no tokenizer": "put tokenizer.json and tokenizer_config.json there",
    }[left]
    with pytest.raises(HicaError, match=words):
        load(root, lines)


def test_settings_that_a_folder_decides_itself(root) -> None:
    _, lines = clip(root)
    with pytest.raises(ConfigurationError, match=r"remove model\.checkpoint, model\.pretrained"):
        load(root, {**lines, "pretrained": "openai"})


def test_a_timm_folder_has_no_text_side_and_only_known_keys(root) -> None:
    folder = root / "weights" / "model"
    made = of_timm(folder, "test_vit")
    with pytest.raises(ConfigurationError, match="a model of timm has no text side"):
        load(root, model_lines(made, folder, text="same"))
    changed(folder / "config.json", model_args={"checkpoint_path": "/etc/passwd"})
    with pytest.raises(HicaError, match="checkpoint_path: unknown key"):
        load(root, model_lines(made, folder))
    changed(folder / "config.json", model_args={}, architecture="evil_net")
    with pytest.raises(HicaError, match="architecture = 'evil_net': timm has no such model"):
        load(root, model_lines(made, folder))


def test_a_text_model_that_is_not_known_says_which_file_to_add(root) -> None:
    folder = root / "weights" / "model"
    made = biomed_clip(folder)
    table = json.loads((folder / "open_clip_config.json").read_text())
    table["model_cfg"]["text_cfg"]["hf_model_name"] = "owner/unheard-of"
    (folder / "open_clip_config.json").write_text(json.dumps(table))
    with pytest.raises(HicaError, match=r"config\.json: no such file, .*'owner/unheard-of'.*put"):
        load(root, model_lines(made, folder))


@torch.no_grad()
def test_siglips_own_tokenizer_is_read_from_its_file(root) -> None:
    """Google's folders have sentencepiece's `spiece.model`, and no `tokenizer.json`."""
    folder = root / "weights" / "model"
    made = of_transformers(folder, "Siglip")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "a bone and a lesion", "smooth margin"] * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=300,
        hard_vocab_limit=False,
        unk_id=2,
        eos_id=1,
        pad_id=0,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    own = {"tokenizer_class": "SiglipTokenizer", "model_input_names": ["input_ids"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    expected = transformers.SiglipTokenizer(str(folder / "spiece.model"))(
        TEXTS, padding="max_length", max_length=10, truncation=True
    ).input_ids
    found = refined_text_tower_of(root, made).tokenize(TEXTS)
    assert found.tolist() == expected and len(set(found[0].tolist())) > 4


def refined_text_tower_of(root: Path, made: Reference) -> object:
    return load(root, model_lines(made, root / "weights" / "model"))[1]


@torch.no_grad()
def test_a_tokenizer_beside_a_checkpoint_serves_a_built_in_name(root, monkeypatch) -> None:
    """open_clip's SigLIP by its own name, its weights and its tokenizer's files in one folder."""
    config = WITH_TOKENIZER["SigLIP"]
    (root / "mini-siglip.json").write_text(json.dumps(config))
    open_clip.add_model_config(root)
    folder = root / "weights" / "siglip"
    folder.mkdir()
    model = open_clip.create_model("mini-siglip").eval()
    torch.save({"state_dict": model.state_dict()}, folder / "siglip.pt")
    from hica.images.cache import file_sha256

    half = [0.5, 0.5, 0.5]
    lines = {
        "image": "mini-siglip",
        "text": "same",
        "checkpoint": "siglip/siglip.pt",
        "sha256": file_sha256(folder / "siglip.pt"),
        "mean": half,
        "std": half,
    }
    with pytest.raises(HicaError, match=r"put tokenizer\.json and tokenizer_config\.json beside"):
        load(root, lines)
    word_tokenizer(folder)
    _, text = load(root, lines)
    tokens = text.tokenize(TEXTS)
    assert torch.allclose(text(tokens), model.encode_text(tokens), atol=1e-5)


def test_nothing_is_asked_of_a_network(root, monkeypatch) -> None:
    import socket

    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where))
    monkeypatch.setattr(socket.socket, "connect", lambda *where: asked.append(where))
    monkeypatch.delitem(os.environ, "HF_HUB_OFFLINE", raising=False)
    for number, case in enumerate(("CLIP of transformers", "BiomedCLIP", "ViT")):
        folder = root / "weights" / f"model{number}"
        made = ALL[case](folder)
        load(root, model_lines(made, folder))
    assert asked == []


def test_the_guide_has_every_case_and_every_row_has_its_test() -> None:
    """docs/weights.md: the last cell of a row is the name of a case here, or of a test."""
    guide = Path(__file__).parents[2] / "docs" / "weights.md"
    rows = [line.split("|") for line in guide.read_text("utf-8").splitlines() if line[:1] == "|"]
    named = [row[-2].strip().strip("`") for row in rows if "`" in row[-2]]
    assert len(named) == len(set(named))
    folders = guide.parents[1] / "tests" / "unit" / "hica"
    files = [
        Path(__file__),
        *(folders / "towers").glob("*.py"),
        *(folders / "regions").glob("*.py"),
    ]
    tests = {
        word for file in files for word in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    cases = {*ALL, *HEAVY}
    assert {name for name in named if not name.startswith("test_")} == cases
    assert [name for name in named if name not in cases | tests] == []
