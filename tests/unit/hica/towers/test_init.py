import subprocess
import sys

import pytest

from hica.errors import ConfigurationError
from hica.towers import load_image_tower, load_text_tower


def test_tiny_takes_no_weights(tmp_path) -> None:
    for argument in ({"checkpoint": tmp_path}, {"pretrained": "openai"}, {"pad_type": "same"}):
        with pytest.raises(ConfigurationError, match=r"remove model\.checkpoint"):
            load_image_tower("tiny", **argument)


def test_tiny_has_one_size() -> None:
    with pytest.raises(ConfigurationError, match=r"image_size = 224.*takes 64 pixels; remove it"):
        load_image_tower("tiny", image_size=224)


def test_pad_type_is_timms() -> None:
    with pytest.raises(ConfigurationError, match=r"only timm/… towers have one; remove it"):
        load_image_tower("ViT-B-16", pad_type="same")


@pytest.mark.parametrize("image", ["tiny", "timm/mobilenetv2_100"])
def test_same_needs_a_pair(image) -> None:
    with pytest.raises(ConfigurationError, match=f"{image} has no text side"):
        load_text_tower("same", image=image, vocabulary=[])


def test_timm_has_no_text_towers() -> None:
    with pytest.raises(ConfigurationError, match="timm/resnet18 has no text side"):
        load_text_tower("timm/resnet18", vocabulary=[])


def test_tiny_text_knows_the_vocabulary() -> None:
    tower = load_text_tower("tiny", vocabulary=["round mass", "mass"])
    assert set(tower.vocabulary) == {"round", "mass"}


def test_tiny_imports_neither_timm_nor_open_clip() -> None:
    code = (
        "import sys; from hica.towers import load_image_tower; load_image_tower('tiny'); "
        "assert not {'timm', 'open_clip', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
