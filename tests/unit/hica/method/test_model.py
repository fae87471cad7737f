import numpy as np
import pytest
import torch
from torch.nn import functional

from hica.errors import MessageError
from hica.method.model import layer_shares


@pytest.fixture
def model(new_model):
    return new_model("tiny", "adapter")


def unit_rows(*shape):
    return functional.normalize(torch.randn(*shape), dim=-1)


def view_of(model, new_examples):
    """Hidden output and region weights of one view of some images."""
    examples = new_examples(model, ["a", "b", "c", "d"])
    return examples.hidden[:, 0].float(), examples.region_weights[:, 0].float()


def test_features_are_placed_by_centre_scale_and_share(model, new_examples):
    model.centre.copy_(torch.randn(2, 128))
    model.scale.copy_(torch.rand(2, 128) + 0.5)
    hidden, weights = view_of(model, new_examples)
    images, regions = model(hidden, weights)
    pooled, parts = model.features(hidden, weights)
    for found, raw, row in ((images, pooled, 0), (regions, parts, 1)):
        standard = (raw - model.centre[row]) / model.scale[row]
        unit = standard / standard.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(found, unit, rtol=1e-5, atol=1e-6)


def test_layers_weigh_alike_however_wide_they_are():
    assert layer_shares([5]).tolist() == [1.0] * 5
    assert layer_shares([4, 16]).tolist() == [0.5] * 4 + [0.25] * 16


def test_unit_features_have_norm_one_and_absent_regions_stay_zero(model, new_examples):
    model.unit_features = True
    images, regions = model.features(*view_of(model, new_examples))
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(4))
    norms = regions.norm(dim=-1)
    assert (((norms - 1).abs() < 1e-5) | (norms == 0)).all()
    assert norms[0, 2] == 0.0  # it has one region less


def test_scores_blend_equals_a_slow_loop(model):
    """Class `a` has findings 0 and 1, class `b` finding 2."""
    listed = torch.tensor([[True, False], [True, False], [False, True]])
    assert torch.equal(model.finding_classes, listed)
    images, regions = unit_rows(3, 128), unit_rows(3, 2, 128)
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    scores = model.scores(images, regions, valid, listed, 0.3)
    classes, findings = model.unit_bank()
    for b in range(3):
        for c in range(2):
            whole = float((images[b] @ classes[c]).detach())
            spoken = [
                max(float((regions[b, k] @ findings[m]).detach()) for m in range(3) if listed[m, c])
                for k in range(2)
                if valid[b, k]
            ]
            expected = 0.7 * whole + 0.3 * float(np.mean(spoken)) if spoken else whole
            assert float(scores[b, c].detach()) == pytest.approx(expected, abs=1e-5)


def test_what_the_federation_has_learnt_is_taken_over(model):
    shared = {name: torch.randn(value.shape) for name, value in model.shared().items()}
    centre, scale, bias = torch.randn(2, 128), torch.rand(2, 128) + 0.5, torch.randn(2)
    model.load(shared, centre, scale, bias.double())
    for name, value in model.shared().items():
        assert torch.equal(value, shared[name]) and value.requires_grad
    assert torch.equal(model.centre, centre) and torch.equal(model.scale, scale)
    assert torch.equal(model.bias, bias)


def test_weights_in_half_precision_are_taken_over_in_the_model_s_own(model):
    shared = {name: torch.randn(value.shape).half() for name, value in model.shared().items()}
    model.load_shared(shared)
    for name, value in model.shared().items():
        assert value.dtype == torch.float32 and torch.equal(value, shared[name].float())


def test_weights_that_do_not_fit_are_refused_by_name(model):
    good = {name: value.detach() for name, value in model.shared().items()}
    with pytest.raises(MessageError, match=r"bank\.classes.*differ"):
        model.load_shared({name: good[name] for name in good if name != "bank.classes"})
    with pytest.raises(MessageError, match=r"'bank\.classes' has shape \(3, 128\)"):
        model.load_shared({**good, "bank.classes": torch.zeros(3, 128)})
    estimated = torch.zeros(2, 128), torch.ones(2, 128), torch.zeros(2)
    with pytest.raises(MessageError, match=r"tower\.more.*differ"):
        model.load({**good, "tower.more": torch.zeros(1)}, *estimated)
