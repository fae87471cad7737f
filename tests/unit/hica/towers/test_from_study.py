import torch

from hica.towers.from_study import adapted_tower


def test_a_cpu_gets_convolutions_in_the_layout_that_is_faster_there(toy_study, tmp_path):
    tower = adapted_tower(toy_study(), tmp_path, torch.device("cpu"))
    maps = [weight for weight in tower.parameters() if weight.ndim == 4]
    assert maps
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in maps)
