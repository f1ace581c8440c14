"""Configs of `experiments.device_selection`."""
