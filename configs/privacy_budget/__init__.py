"""Configurations of experiments.privacy_budget."""
