"""The default run compiles in a hurry: its programs are small and run once.

Compiling is three quarters of the time of most rooms, and a third of that is
the optimisation of code that then runs for microseconds. A room whose
`conftest.py` imports the fixture leaves it out, except where slow tests are
asked for: `-m slow` and `-m ""` compile everything as a user's program is.
Tests of rounding do not import it, and always do.
"""

import jax
import pytest

_OPTION = "jax_disable_most_optimizations"


@pytest.fixture(scope="module", autouse=True)
def hurried_compilation(request):
  """Leaves optimisation out of what a module compiles by default."""
  before = jax.config.read(_OPTION)
  jax.config.update(_OPTION, request.config.option.markexpr == "not slow")
  yield
  jax.config.update(_OPTION, before)
