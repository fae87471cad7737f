"""Prediction: what a finished study's model says of a hospital's own images. Nothing leaves."""
