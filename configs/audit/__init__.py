"""Configurations of experiments.audit."""
