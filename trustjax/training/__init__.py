"""Training: one record's loss in, a trained and resumable state out.

make_private_step   loss, optimiser, plan -> (init, step), private
make_deferred_step  loss, learning rate, plan -> (init, step, settle), private
                    SGD whose noise waits where nobody looks
make_step           loss, optimiser       -> (init, step), not private
train               the loop: draw, step, log, evaluate, save, repeat
train_ensemble      many models on parts of the records, as one program;
                    draw_memberships and MemberLots say who sees what
Checkpointer        saves and resumes exactly; refuses another run's state
MetricWriter        metrics.jsonl
make_optimizer      optax optimisers by name, for configs; make_learning_rate
                    is its schedule alone
"""

from trustjax.training._checkpoint import Checkpointer as Checkpointer
from trustjax.training._checkpoint import CheckpointError as CheckpointError
from trustjax.training._checkpoint import check_identity as check_identity
from trustjax.training._checkpoint import differences as differences
from trustjax.training._ensemble import EnsembleOptions as EnsembleOptions
from trustjax.training._ensemble import EnsembleResult as EnsembleResult
from trustjax.training._ensemble import ensemble_keys as ensemble_keys
from trustjax.training._ensemble import train_ensemble as train_ensemble
from trustjax.training._interrupt import StopOnInterrupt as StopOnInterrupt
from trustjax.training._loop import LoopOptions as LoopOptions
from trustjax.training._loop import TrainResult as TrainResult
from trustjax.training._loop import train as train
from trustjax.training._member_lots import MemberLots as MemberLots
from trustjax.training._member_lots import draw_memberships as draw_memberships
from trustjax.training._metrics import MetricWriter as MetricWriter
from trustjax.training._optimizers import (
  make_learning_rate as make_learning_rate,
)
from trustjax.training._optimizers import make_optimizer as make_optimizer
from trustjax.training._progress import progress_bar as progress_bar
from trustjax.training._state import StepMetrics as StepMetrics
from trustjax.training._state import TrainState as TrainState
from trustjax.training._step import make_deferred_step as make_deferred_step
from trustjax.training._step import make_private_step as make_private_step
from trustjax.training._step import make_step as make_step
from trustjax.training._step import nothing_to_settle as nothing_to_settle
from trustjax.training._step import private_optimizer as private_optimizer
