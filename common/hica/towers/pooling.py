"""From pixel masks to region embeddings: mask-weighted means of patch tokens.

One forward of the image tower serves the image and all its regions. Crops would cost one forward
each and, folded into the batch, would silently make DP-SGD clip per crop instead of per image.
"""

import torch
from torch import Tensor
from torch.nn import functional


def to_grid(masks: Tensor, grid: int, count: int) -> tuple[Tensor, Tensor]:
    """Area-average pixel masks onto the patch grid of side g and pad them to K = `count` regions.

    Masks are bool [..., k, S, S], largest region first; of more than `count` the first are kept.
    Gives weights, float32 [..., K, g, g], the share of each patch that the region covers, zero
    where there is no region; and bool [..., K], whether the region covers any pixel (a crop may
    have lost it).
    """
    *lead, regions, height, width = masks.shape
    kept = min(regions, count)
    pixels = masks[..., :kept, :, :].reshape(-1, 1, height, width).float()
    weights = masks.new_zeros((*lead, count, grid, grid), dtype=torch.float32)
    if pixels.numel():
        averaged = functional.adaptive_avg_pool2d(pixels, grid)
        weights[..., :kept, :, :] = averaged.reshape(*lead, kept, grid, grid)
    return weights, weights.flatten(-2).sum(-1) > 0


def pool(patches: Tensor, weights: Tensor) -> Tensor:
    """Region embeddings r_k = Σₙ wₖₙ·pₙ / Σₙ wₖₙ, differentiable in both arguments.

    Of patch tokens [B, N, D] in reading order, N = g·g, and weights [B, K, g, g] on their grid.
    Gives [B, K, D] in the dtype of `patches`; zero for a region whose weights sum to 0.
    """
    flat = weights.flatten(2).to(patches.dtype)  # (B, K, N)
    total = flat.sum(dim=-1, keepdim=True)  # (B, K, 1)
    # Dividing by 1 where the sum is 0 keeps both the result and its gradient free of NaN.
    return torch.bmm(flat, patches) / torch.where(total > 0, total, torch.ones_like(total))
