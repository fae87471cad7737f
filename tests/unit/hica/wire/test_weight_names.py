from hica.wire.weight_names import factor_pairs


def test_factors_pair_by_name() -> None:
    names = ["y.lora_b.weight", "x.lora_b.weight", "bank", "x.lora_a.weight", "y.lora_a.weight"]
    assert factor_pairs(names) == [
        ("x.lora_a.weight", "x.lora_b.weight"),
        ("y.lora_a.weight", "y.lora_b.weight"),
    ]
    assert factor_pairs(["x.lora_b.weight"]) == []  # A frozen: sums of B are exact
