"""Configs of `experiments.predict_gpu_step`."""
