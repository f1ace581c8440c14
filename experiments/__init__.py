"""Binaries: one absl program per question, thin over the library."""
