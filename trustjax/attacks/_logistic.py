"""Logistic regression to its optimum, for attackers that are linear."""

import numpy as np
from jaxtyping import Bool, Float64
from scipy import special

# The largest slope that counts as none. Weights add up to 1 and features are
# standardised, so slopes are of the order of 1 at the start.
_FLAT = 1e-10
# Newton's method takes some five steps; separable data without a penalty has
# its optimum at infinity, and each step divides the loss by e.
_STEPS = 100
_HALVINGS = 40


def logistic_optimum(
  features: Float64[np.ndarray, "examples features"],
  truth: Bool[np.ndarray, " examples"],
  weights: Float64[np.ndarray, " examples"],
  *,
  l2: float,
) -> tuple[Float64[np.ndarray, " features"], float, float]:
  """Kernel and bias with the smallest penalised cross-entropy.

    sum_i w_i (softplus(t_i) - y_i t_i) + l2 / 2 |kernel|^2
    t_i = kernel . x_i + bias

  The objective is convex and has few parameters: Newton's method, whose step is
  halved until the objective falls, reaches it to rounding in a few passes over
  the data, in float64 on the host.

  Args:
    features: Standardised features x.
    truth: Labels y.
    weights: Weights w of the examples, with sum 1.
    l2: Penalty of the kernel; the bias is free.

  Returns:
    (kernel, bias, objective). Without a penalty, collinear features share
    their weight, and separable data ends where the slope is below 1e-10.
  """
  # Examples lie side by side in memory, the bias is the last row.
  rows = np.concatenate([features.T, np.ones((1, len(features)))])
  penalty = np.full(len(rows), float(l2))
  penalty[-1] = 0.0

  def objective(theta, logit):
    each = np.maximum(logit, 0) + np.log1p(np.exp(-np.abs(logit)))
    return weights @ (each - truth * logit) + penalty @ theta**2 / 2

  theta, logit = np.zeros(len(rows)), np.zeros(len(features))
  value = objective(theta, logit)
  for _ in range(_STEPS):
    p = special.expit(logit)
    slope = rows @ (weights * (p - truth)) + penalty * theta
    if np.abs(slope).max() <= _FLAT:
      break
    root = rows * np.sqrt(weights * p * (1 - p))
    curvature = root @ root.T + np.diag(penalty)
    # Of collinear features, which make it singular, the shortest step.
    step = np.linalg.lstsq(curvature, slope)[0]
    for _ in range(_HALVINGS):
      moved = theta - step
      moved_logit = moved @ rows
      lower = objective(moved, moved_logit)
      if lower < value:
        break
      step = step / 2
    else:
      # Rounding hides what is left.
      break
    theta, logit, value = moved, moved_logit, lower
  return theta[:-1], float(theta[-1]), float(value)
