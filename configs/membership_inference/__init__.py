"""Configurations of experiments.membership_inference."""
