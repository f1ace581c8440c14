"""Refusals of the generators' fields: what it was, and what is allowed."""


def check_at_least(least: int, **fields: float) -> None:
  """Raises ValueError unless each field is at least `least`."""
  for field, value in fields.items():
    if value < least:
      raise ValueError(f"{field} is {value}; it must be at least {least}")


def check_shares(**fields: float) -> None:
  """Raises ValueError unless each field is in [0, 1]."""
  for field, value in fields.items():
    if not 0 <= value <= 1:
      raise ValueError(f"{field} is {value}; it must be in [0, 1]")
