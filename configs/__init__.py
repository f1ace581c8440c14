"""Configurations: one file per experiment or table."""
