"""Configs of `experiments.prediction_sensitivity`."""
