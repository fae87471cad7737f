"""A pair of open_clip in a folder that brings code of its own."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
RUNS = (
    "from pathlib import Path\nPath({ran!r}).touch()\nclass Tokenizer: pass\nclass Config: pass\n"
)


def folder_of_a_pair(folder: Path, text: dict, vision: dict = VISION, **model: object) -> None:
    """A pair of open_clip in a folder, with a Python file that leaves a mark where it runs."""
    folder.mkdir()
    table = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {**TEXT, **text}, **model}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": table}))
    (folder / "evil.py").write_text(RUNS.format(ran=str(folder.parent / "ran")))
    open_clip.add_model_config(_plain_config(folder.parent))
    state = open_clip.create_model("mini-plain", force_custom_text=True).state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        folder / "open_clip_model.safetensors",
    )


def _plain_config(folder: Path) -> Path:
    path = folder / "mini-plain.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}))
    return path
