"""Training: the default run compiles in a hurry."""

from tests.compilation import hurried_compilation  # noqa: F401
