"""Baselines: what the same shots give simpler methods, on the same towers, transforms and episodes.

One interface (`episode.FitPredict`): fit on an `Episode`, predict its test images. `registry` names
them all, `shots` runs them on the sites of a simulation.
"""
