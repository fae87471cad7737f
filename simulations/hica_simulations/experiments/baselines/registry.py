"""Every baseline by name; a name has its title in `hica_simulations.console.TITLES`."""

from __future__ import annotations

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
    pixels,
    prompt_fl,
    tip_adapter,
    tip_adapter_f,
    zero_shot,
)
from hica_simulations.experiments.baselines.episode import FitPredict
from hica_simulations.experiments.baselines.tuning import FitPredictTuned

ON_PIXELS: dict[str, FitPredict] = {
    "pixels": pixels.fit_predict,
}
"""Their episodes hold thumbnails."""

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
"""Their episodes hold features of the study's tower, frozen, and its text bank."""

ON_PROMPTS: dict[str, FitPredict] = {
    "coop": coop.fit_predict,
    "prompt_fl": prompt_fl.fit_predict,
}
"""As `ON_FEATURES`, and the study's text tower beside it."""

ON_IMAGES: dict[str, FitPredictTuned] = {
    "cnn": cnn.fit_predict,
    "clip_lora": clip_lora.fit_predict,
}
"""They train a part of the study's tower, and their episodes hold what that part starts from."""

MODELS: dict[str, tuple[str, ...]] = {
    "cnn": cnn.MODEL,
    "clip_lora": clip_lora.MODEL,
}
"""Which part: what each of `ON_IMAGES` sets in the study."""

IN_EVERY_RUN = ("pixels", "linear_probe")
"""Need no texts and take seconds; the others are run for the table `main`."""

NAMES = (*ON_PIXELS, *ON_FEATURES, *ON_PROMPTS, *ON_IMAGES)
"""All of them."""
