"""Baselines that need no federation: what the same shots give simpler methods."""
