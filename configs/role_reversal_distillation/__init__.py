"""Configurations of experiments.role_reversal_distillation."""
