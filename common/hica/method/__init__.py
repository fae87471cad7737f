"""The method: objective, model, local training, pseudo-labels, calibration, metrics."""
