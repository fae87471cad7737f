"""Names of weights that both sides go by; the coordinator needs no torch to know them."""

from collections.abc import Iterable

BANK_CLASSES = "bank.classes"
BANK_FINDINGS = "bank.findings"
LORA_A, LORA_B = ".lora_a.weight", ".lora_b.weight"
"""How the names of LoRA's factors end."""


def factor_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name of A, name of B) of factors that belong together, in the order of the names of A.

    A has shape [r, in] and B [out, r] (with 1×1 behind for convolutions); the change of the layer
    is proportional to B·A, and so this product, not A and B apart, is what may be averaged.
    """
    names = set(names)
    starts = sorted(name.removesuffix(LORA_A) for name in names if name.endswith(LORA_A))
    return [(start + LORA_A, start + LORA_B) for start in starts if start + LORA_B in names]
