import pytest
import torch

from hica.method.examples import joined


@pytest.fixture
def model(new_model):
    return new_model("tiny", "adapter")


def test_rows_are_of_the_same_images_in_every_part(model, new_examples):
    examples = new_examples(model, ["a", "b", "c", "d"])
    index = torch.tensor([3, 1])
    some = examples.rows(index)
    assert len(some) == 2 and some.groups == ("d", "b")
    for name in ("hidden", "region_weights", "valid", "labels", "positives"):
        assert torch.equal(getattr(some, name), getattr(examples, name)[index])


def test_fewer_views_are_the_first_of_the_same_images(model, new_examples):
    examples = new_examples(model, ["a", "b", "c"], views=3)
    few = examples.first_views(2)
    assert torch.equal(few.hidden, examples.hidden[:, :2])
    assert torch.equal(few.region_weights, examples.region_weights[:, :2])
    assert torch.equal(few.valid, examples.valid[:, :2])
    assert few.labels is examples.labels and few.groups == examples.groups


def test_further_images_show_their_one_view_in_the_place_of_all(model, new_examples):
    shots = new_examples(model, ["a", "b", "c"], views=4)
    more = new_examples(model, ["d", "e", "f", "g", "h"], views=1)
    both = joined(shots, more.rows(torch.tensor([4, 1])))
    assert len(both) == 5 and both.groups == ("a", "b", "c", "h", "e")
    assert torch.equal(both.hidden[:3], shots.hidden)
    for view in range(4):
        assert torch.equal(both.hidden[3:, view], more.hidden[[4, 1], 0])
        assert torch.equal(both.region_weights[3:, view], more.region_weights[[4, 1], 0])
        assert torch.equal(both.valid[3:, view], more.valid[[4, 1], 0])
    assert torch.equal(both.labels[3:], more.labels[[4, 1]])
    assert torch.equal(both.positives[3:], more.positives[[4, 1]])
    assert both.first_views(2).hidden.shape[1] == 2
