import json
from pathlib import Path

import open_clip
import pytest

from hica.errors import WeightsError
from hica.towers.openclip_config import CONFIG, read_config

BIOMED_CLIP = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": "owner/bert",
            "hf_tokenizer_name": "owner/bert",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
        "custom_text": True,
    },
    "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
}
OWN = sorted((Path(open_clip.__file__).parent / "model_configs").glob("*.json"))


def written(folder: Path, table: object, text: object = None) -> Path:
    (folder / CONFIG).write_text(json.dumps(table))
    (folder / "config.json").write_text(json.dumps(text or {"model_type": "bert"}))
    return folder


def test_all_pairs_of_open_clip_can_be_read(tmp_path):
    for path in OWN:
        table = json.loads(path.read_text())
        text = {"model_type": "roberta"}
        found = read_config(written(tmp_path, {"model_cfg": table}, text), "model.image")
        vision = {**table["vision_cfg"]}
        assert found["vision_cfg"] == vision and found["embed_dim"] == table["embed_dim"]
    assert len(OWN) > 100


def test_text_side_and_weights_are_those_of_the_folder(tmp_path):
    found = read_config(written(tmp_path, BIOMED_CLIP), "model.image")
    assert found["text_cfg"]["hf_model_pretrained"] is False
    assert "custom_text" not in found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embed_dim": "512"}, "model_cfg.embed_dim: "),
        ({"embed_dim": 0}, "model_cfg.embed_dim: "),
        ({"vision_cfg": {"timm_model_name": "local-dir:/x"}}, "no model that timm has"),
        ({"vision_cfg": {"act_kwargs": {"approximate": "evil"}}}, "act_kwargs.approximate: "),
        ({"text_cfg": {"tokenizer_kwargs": {"tokenizer_type": "x"}}}, "known keys: clean, strip"),
        ({"quick_gelu": "yes"}, "model_cfg.quick_gelu: "),
    ],
)
def test_type_range_and_name_of_every_key_are_checked(tmp_path, change, named):
    table = {"model_cfg": {**BIOMED_CLIP["model_cfg"], **change}}
    with pytest.raises(WeightsError, match=r"is read by these keys only \(model\.text\)") as error:
        read_config(written(tmp_path, table), "model.text")
    assert named in str(error.value)


@pytest.mark.parametrize("table", [[], 3, {}])
def test_a_file_of_another_form_is_named(tmp_path, table):
    with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
        read_config(written(tmp_path, table), "model.text")
    with pytest.raises(WeightsError, match=r"config\.json: model_type = None: .*never run"):
        read_config(written(tmp_path, BIOMED_CLIP, [1]), "model.text")
