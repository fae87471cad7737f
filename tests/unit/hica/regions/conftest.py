"""Images that have broken region methods, and networks small enough for a test."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hica.regions.unet import Network, Shapes

SIDE = 64


def disc(row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def rgb(image: np.ndarray) -> np.ndarray:
    """Grey [S, S] of any range to uint8 [S, S, 3]."""
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    """Uint8 [S, S, 3] by name."""
    noise = np.random.default_rng(0).normal(110, 25, (SIDE, SIDE))
    lesion, tiny = noise.copy(), noise.copy()
    lesion[disc(30, 24, 10)] -= 90
    tiny[40:42, 20:22] = 255
    return {
        "black": rgb(np.zeros((SIDE, SIDE))),
        "white": rgb(np.full((SIDE, SIDE), 255.0)),
        "noise": rgb(noise),
        "lesion": rgb(lesion),
        "tiny-lesion": rgb(tiny),
    }


def build_tiny_sam() -> torch.nn.Module:
    """Real prompt encoder and mask decoder; of the image encoder one narrow windowed block."""
    from segment_anything.build_sam import _build_sam

    return _build_sam(
        encoder_embed_dim=16,
        encoder_depth=1,
        encoder_num_heads=1,
        encoder_global_attn_indexes=[],
    )


@pytest.fixture(scope="session")
def tiny_sam_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_tiny_sam()
    path = tmp_path_factory.mktemp("sam") / "tiny_sam.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def tiny_sam(tiny_sam_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of random weights; meanwhile the registry's `vit_b` is the network it fits."""
    import segment_anything

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_b", build_tiny_sam)
    return tiny_sam_checkpoint


FAMILY = ["sam", "sam-hq", "sam2"]


def build_tiny_of_family(kind: str) -> tuple[torch.nn.Module, object]:
    """A network of a few thousand weights and its image processor, both for 64 pixels."""
    import transformers as t

    if kind == "sam2":
        hiera = t.Sam2HieraDetConfig(
            hidden_size=8,
            image_size=[SIDE, SIDE],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 24, 32],
            num_attention_heads_per_stage=[1, 1, 1, 1],
            window_size_per_stage=[8, 4, 4, 2],
            global_attention_blocks=[3],
            window_positional_embedding_background_size=[2, 2],
        )
        config = t.Sam2Config(
            vision_config=t.Sam2VisionConfig(
                backbone_config=hiera,
                backbone_channel_list=[32, 24, 16, 8],
                backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
                fpn_hidden_size=16,
            ),
            prompt_encoder_config=t.Sam2PromptEncoderConfig(
                hidden_size=16, image_size=SIDE, mask_input_channels=4
            ),
            mask_decoder_config=t.Sam2MaskDecoderConfig(
                hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
            ),
        )
        return t.Sam2Model(config), t.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE})
    name = {"sam": "Sam", "sam-hq": "SamHQ"}[kind]
    vision, prompt, decoder, whole = (
        getattr(t, f"{name}{part}Config") for part in ("Vision", "PromptEncoder", "MaskDecoder", "")
    )
    config = whole(
        vision_config=vision(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=8,
            mlp_dim=16,
            num_pos_feats=8,
            global_attn_indexes=[1],
            window_size=4,
        ),
        prompt_encoder_config=prompt(
            hidden_size=16, image_size=SIDE, patch_size=8, mask_input_channels=4
        ),
        mask_decoder_config=decoder(
            hidden_size=16,
            mlp_dim=16,
            num_attention_heads=2,
            iou_head_hidden_dim=16,
            **({"vit_dim": 16} if kind == "sam-hq" else {}),
        ),
    )
    square = {"height": SIDE, "width": SIDE}
    processor = t.SamImageProcessor(size={"longest_edge": SIDE}, pad_size=square)
    return getattr(t, f"{name}Model")(config), processor


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a folder for each of `FAMILY`, random weights as the hub lays them out."""
    root = tmp_path_factory.mktemp("hub")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kind in FAMILY:
            network, processor = build_tiny_of_family(kind)
            network.save_pretrained(root / kind)
            processor.save_pretrained(root / kind)
    return root


def bright_unet(channels: int = 3, classes: int = 1, widths: tuple[int, ...] = (2, 3, 4)):
    """State dict of a U-Net that passes brightness along the first skip: x > ½ is foreground.

    Of more than one class, the last is the foreground and x > ½ wins against the background.
    """
    state = Network(Shapes.usual(channels, list(widths), classes)).state_dict()
    for name, value in state.items():
        is_norm = name.endswith(("1.weight", "4.weight")) and value.ndim == 1
        value.fill_(1 if is_norm or name.endswith("running_var") else 0)
    state["inc.double_conv.0.weight"][0, :, 1, 1] = 1 / channels
    last = f"up{len(widths) - 1}.conv.double_conv"
    for name in ("inc.double_conv.3.weight", f"{last}.0.weight", f"{last}.3.weight"):
        state[name][0, 0, 1, 1] = 1
    state["outc.conv.weight"][-1, 0] = 20
    state["outc.conv.bias"][-1] = -10
    return state


@pytest.fixture(scope="session")
def tiny_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unet") / "bright.pth"
    torch.save(bright_unet(), path)
    return path


def pixel_patches(pixels: np.ndarray) -> np.ndarray:
    """Stands in for a tower: an 8×8 grid of patches whose features are their pixels, [64, D]."""
    side = len(pixels) // 8
    cells = pixels.reshape(8, side, 8, side, 3).swapaxes(1, 2)
    return cells.reshape(64, -1).astype(np.float32)


@pytest.fixture
def needs(tiny_sam: Path, tiny_family: Path, tiny_unet: Path) -> dict[str, dict[str, object]]:
    """What `build` must be given for a method, by its name."""
    return {
        "sam": {"checkpoint": tiny_sam},
        "hf-sam": {"checkpoint": "sam", "weights": tiny_family},
        "token-cut": {"patches": pixel_patches, "tower": "tower"},
        "unet": {"checkpoint": tiny_unet},
    }
