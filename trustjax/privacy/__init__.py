"""Private training: clipping, noise, sampling, mechanisms, accounting.

A map, in the order of a private step:

  DpSgdPlan         one record from which the four below are read
  Mechanism         sampling, steps, noise, adjacency; `epsilon`, `statement`
  clipped_grad      one record's loss -> clipped gradient sum of a lot
  explain           how each parameter is clipped, and what that costs
  block_norms       norms to clip by, never too short
  partition, merge  frozen and trained parameters
  *Clip             clipping rules (threshold, automatic, per layer, quantile)
  add_noise         noise and averaging as an optax transformation
  deferred_noise_sgd  a step that draws a table row's noise when it is read
  *_lot             which record sits in which slot, from (seed, step)
  calibrate_*       the noise, steps or batch size that meet a target epsilon

Everything works on arrays, pytrees and callables; no model or data set of
TrustJAX is needed.
"""

from trustjax.privacy._accounting import EpsilonBounds as EpsilonBounds
from trustjax.privacy._accounting import gaussian_epsilon as gaussian_epsilon
from trustjax.privacy._calibration import (
  calibrate_batch_size as calibrate_batch_size,
)
from trustjax.privacy._calibration import (
  calibrate_noise_multiplier as calibrate_noise_multiplier,
)
from trustjax.privacy._calibration import (
  calibrate_num_steps as calibrate_num_steps,
)
from trustjax.privacy._deferred_noise import DeferredSgd as DeferredSgd
from trustjax.privacy._deferred_noise import DeferredState as DeferredState
from trustjax.privacy._deferred_noise import (
  deferred_noise_sgd as deferred_noise_sgd,
)
from trustjax.privacy._engines import ENGINES as ENGINES
from trustjax.privacy._engines import HOST_ENGINES as HOST_ENGINES
from trustjax.privacy._engines import EngineChoice as EngineChoice
from trustjax.privacy._engines import Explanation as Explanation
from trustjax.privacy._engines import LeafRoute as LeafRoute
from trustjax.privacy._engines import choose_engine as choose_engine
from trustjax.privacy._engines import clipped_grad as clipped_grad
from trustjax.privacy._engines import explain as explain
from trustjax.privacy._engines._unit import block_norms as block_norms
from trustjax.privacy._engines._unit import record_keys as record_keys
from trustjax.privacy._lot import ClippedGrads as ClippedGrads
from trustjax.privacy._lot import Lot as Lot
from trustjax.privacy._mechanism import Adjacency as Adjacency
from trustjax.privacy._mechanism import Mechanism as Mechanism
from trustjax.privacy._mechanism import Sampler as Sampler
from trustjax.privacy._noise import add_noise as add_noise
from trustjax.privacy._normals import standard_normals as standard_normals
from trustjax.privacy._plan import DpSgdPlan as DpSgdPlan
from trustjax.privacy._rules import AutoClip as AutoClip
from trustjax.privacy._rules import ClippingRule as ClippingRule
from trustjax.privacy._rules import PerLayerClip as PerLayerClip
from trustjax.privacy._rules import QuantileClip as QuantileClip
from trustjax.privacy._rules import ThresholdClip as ThresholdClip
from trustjax.privacy._rules import make_rule as make_rule
from trustjax.privacy._rules import (
  sensitivity_in_clip_norms as sensitivity_in_clip_norms,
)
from trustjax.privacy._sampling import LotIndices as LotIndices
from trustjax.privacy._sampling import (
  default_group_capacity as default_group_capacity,
)
from trustjax.privacy._sampling import (
  default_lot_capacity as default_lot_capacity,
)
from trustjax.privacy._sampling import (
  expected_dropped_share as expected_dropped_share,
)
from trustjax.privacy._sampling import (
  grouped_poisson_lot as grouped_poisson_lot,
)
from trustjax.privacy._sampling import (
  overflow_probability as overflow_probability,
)
from trustjax.privacy._sampling import poisson_lot as poisson_lot
from trustjax.privacy._sampling import shuffled_lot as shuffled_lot
from trustjax.privacy._sampling import (
  truncated_poisson_lot as truncated_poisson_lot,
)
from trustjax.privacy._schedules import NoiseSchedule as NoiseSchedule
from trustjax.privacy._selection import merge as merge
from trustjax.privacy._selection import partition as partition
