"""Every baseline by name; its title is in `hica_simulations.experiments.titles`."""

from hica.study import Changes
from hica_simulations.experiments.baselines import (
    clap,
    clip_lora,
    cnn,
    coop,
    fed_adapter,
    fed_norm,
    fed_probe,
    linear_probe,
    nearest_mean,
    prompt_fl,
    tip_adapter,
    tip_adapter_f,
    zero_shot,
)
from hica_simulations.experiments.baselines.episode import FitPredict
from hica_simulations.experiments.baselines.tuning import FitPredictTuned

ON_PIXELS: dict[str, FitPredict] = {"pixels": linear_probe.fit_predict}
"""Baselines whose episodes hold thumbnails."""

ON_FEATURES: dict[str, FitPredict] = {
    "zero_shot": zero_shot.fit_predict,
    "nearest_mean": nearest_mean.fit_predict,
    "linear_probe": linear_probe.fit_predict,
    "clap": clap.fit_predict,
    "tip_adapter": tip_adapter.fit_predict,
    "tip_adapter_f": tip_adapter_f.fit_predict,
    "fed_avg": fed_probe.fed_avg,
    "fed_prox": fed_probe.fed_prox,
    "fed_norm": fed_norm.fit_predict,
    "fed_adapter": fed_adapter.fit_predict,
}
"""Baselines whose episodes hold features of the study's frozen tower, and its text bank."""

ON_PROMPTS: dict[str, FitPredict] = {
    "coop": coop.fit_predict,
    "prompt_fl": prompt_fl.fit_predict,
}
"""Baselines whose episodes hold frozen features, the text bank and the study's text tower."""

ON_IMAGES: dict[str, FitPredictTuned] = {
    "cnn": cnn.fit_predict,
    "clip_lora": clip_lora.fit_predict,
}
"""Baselines that train a part of the study's tower; their episodes hold that part's inputs."""

MODELS: dict[str, Changes] = {"cnn": cnn.MODEL, "clip_lora": clip_lora.MODEL}
"""What each of `ON_IMAGES` sets in the study: which part of the tower it trains."""

IN_EVERY_RUN = ("pixels", "linear_probe")
"""Baselines that need no texts and take seconds; the others are run for the table `main`."""

NAMES = (*ON_PIXELS, *ON_FEATURES, *ON_PROMPTS, *ON_IMAGES)
"""The names of all baselines."""
