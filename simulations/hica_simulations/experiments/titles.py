"""What every method is called on a screen and in tables, in the order in which it is listed."""

from hica_server.console import METHODS

TITLES = {
    "zero_shot": METHODS["zero_shot"],
    "pixels": "logistic regression on 16×16 pixels, pooled shots",
    "nearest_mean": "nearest class mean, pooled shots",
    "linear_probe": "linear probe on the tower's features, pooled shots",
    "clap": "CLAP (linear probe from the texts), pooled shots",
    "tip_adapter": "Tip-Adapter, pooled shots",
    "tip_adapter_f": "Tip-Adapter-F, pooled shots",
    "cnn": "CNN fine-tuned, pooled shots",
    "clip_lora": "CLIP-LoRA (low-rank factors in the image tower), pooled shots",
    "coop": "CoOp (learnt prompts), pooled shots",
    "fed_avg": "FedAvg of a linear probe",
    "fed_prox": "FedProx of a linear probe",
    "fed_norm": "FedAvg of a linear probe, local normalisation",
    "fed_adapter": "FedCLIP (attention adapter)",
    "prompt_fl": "PromptFL (CoOp averaged over sites)",
    "local_only": "HiCA local only (mean over sites)",
    "federated": METHODS["federated"],
    "pooled": "HiCA pooled (images in one place)",
}
