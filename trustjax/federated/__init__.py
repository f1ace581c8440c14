"""Federated training: clients, selection, algorithms, rounds.

A map, in the order of a round:

  *_partition, Partition     which client holds which record
  partition_statistics       how uneven that is
  lognormal_, zipf_activity  how active devices are
  ClientStore                a data set and its clients; fetches a cohort's data
  select_clients, Strategy   who takes part, from (key, round, activity)
  Cohort                     their ids, weights and padded batches
  fedavg, fedprox, scaffold,
  fedopt, fedadam, fedyogi,
  fedavgm                    FederatedAlgorithm: pure functions of ONE client
  run_round                  trains the cohort, sums updates, moves the server
  UserLevelPlan, run_private_round
                             the same with user-level privacy
  fedavg_local_dp            record-level privacy inside the clients
  draw_available,
  drop_stragglers            who can be reached, and who is too late
  partial_loss               clients that train a part of the parameters
  TopK, Quantize, SecureSum  what happens to an update on its way
  wire_bytes                 what a client receives and sends
  ClientStream, Retention    data that arrives, drifts and is deleted
  transfer, mixture_accuracy what is forgotten, and who pays
  with_error_feedback        clients that keep what compression cuts off
  train_rounds               the loop: progress, metrics, exact resume

How clients are executed (one after the other, side by side, over devices) is
an argument of `run_round` and never changes the result beyond rounding; the
README of this room has the picture.
"""

from trustjax.federated._activity import activity_deciles as activity_deciles
from trustjax.federated._activity import (
  lognormal_activity as lognormal_activity,
)
from trustjax.federated._activity import scale_to_total as scale_to_total
from trustjax.federated._activity import zipf_activity as zipf_activity
from trustjax.federated._algorithm import ClientResult as ClientResult
from trustjax.federated._algorithm import (
  FederatedAlgorithm as FederatedAlgorithm,
)
from trustjax.federated._algorithm import LocalMetrics as LocalMetrics
from trustjax.federated._algorithm import RoundSums as RoundSums
from trustjax.federated._algorithm import ServerState as ServerState
from trustjax.federated._algorithm import Shared as Shared
from trustjax.federated._algorithm import new_state as new_state
from trustjax.federated._availability import device_speeds as device_speeds
from trustjax.federated._availability import draw_available as draw_available
from trustjax.federated._availability import (
  drop_stragglers as drop_stragglers,
)
from trustjax.federated._balanced import (
  balanced_label_partition as balanced_label_partition,
)
from trustjax.federated._choose import BackendChoice as BackendChoice
from trustjax.federated._choose import choose_backend as choose_backend
from trustjax.federated._clients import ClientStore as ClientStore
from trustjax.federated._clusters import cluster_labels as cluster_labels
from trustjax.federated._cohort import ClientBatches as ClientBatches
from trustjax.federated._cohort import Cohort as Cohort
from trustjax.federated._compression import Compression as Compression
from trustjax.federated._compression import Payload as Payload
from trustjax.federated._compression import Quantize as Quantize
from trustjax.federated._compression import TopK as TopK
from trustjax.federated._draws import poisson_rates as poisson_rates
from trustjax.federated._draws import (
  successive_inclusion as successive_inclusion,
)
from trustjax.federated._error_feedback import (
  with_error_feedback as with_error_feedback,
)
from trustjax.federated._execution import BACKENDS as BACKENDS
from trustjax.federated._execution import Execution as Execution
from trustjax.federated._execution import RoundMetrics as RoundMetrics
from trustjax.federated._fedavg import fedavg as fedavg
from trustjax.federated._fedopt import fedadam as fedadam
from trustjax.federated._fedopt import fedavgm as fedavgm
from trustjax.federated._fedopt import fedopt as fedopt
from trustjax.federated._fedopt import fedyogi as fedyogi
from trustjax.federated._fedprox import fedprox as fedprox
from trustjax.federated._forgetting import Transfer as Transfer
from trustjax.federated._forgetting import class_shares as class_shares
from trustjax.federated._forgetting import mixture_accuracy as mixture_accuracy
from trustjax.federated._forgetting import transfer as transfer
from trustjax.federated._local import LocalState as LocalState
from trustjax.federated._local import local_step as local_step
from trustjax.federated._local import partial_loss as partial_loss
from trustjax.federated._local import start_local as start_local
from trustjax.federated._local_privacy import (
  fedavg_local_dp as fedavg_local_dp,
)
from trustjax.federated._local_privacy import local_epsilon as local_epsilon
from trustjax.federated._partition_statistics import (
  PartitionStatistics as PartitionStatistics,
)
from trustjax.federated._partition_statistics import (
  heat_map_order as heat_map_order,
)
from trustjax.federated._partition_statistics import (
  jensen_shannon_matrix as jensen_shannon_matrix,
)
from trustjax.federated._partition_statistics import (
  label_shares as label_shares,
)
from trustjax.federated._partition_statistics import (
  mean_divergence as mean_divergence,
)
from trustjax.federated._partition_statistics import (
  partition_statistics as partition_statistics,
)
from trustjax.federated._partitions import Partition as Partition
from trustjax.federated._partitions import (
  class_dirichlet_partition as class_dirichlet_partition,
)
from trustjax.federated._partitions import (
  dirichlet_label_partition as dirichlet_label_partition,
)
from trustjax.federated._partitions import (
  mixture_partition as mixture_partition,
)
from trustjax.federated._partitions import (
  natural_partition as natural_partition,
)
from trustjax.federated._partitions import (
  quantity_partition as quantity_partition,
)
from trustjax.federated._partitions import (
  uniform_partition as uniform_partition,
)
from trustjax.federated._placement import PLACEMENTS as PLACEMENTS
from trustjax.federated._rounds import run_private_round as run_private_round
from trustjax.federated._rounds import run_round as run_round
from trustjax.federated._scaffold import scaffold as scaffold
from trustjax.federated._scores import STRATEGIES as STRATEGIES
from trustjax.federated._scores import Strategy as Strategy
from trustjax.federated._scores import log_scores as log_scores
from trustjax.federated._secure_sum import SecureSum as SecureSum
from trustjax.federated._selection import SAMPLINGS as SAMPLINGS
from trustjax.federated._selection import WEIGHTINGS as WEIGHTINGS
from trustjax.federated._selection import (
  inclusion_probabilities as inclusion_probabilities,
)
from trustjax.federated._selection import select_clients as select_clients
from trustjax.federated._streams import NEVER as NEVER
from trustjax.federated._streams import RETENTIONS as RETENTIONS
from trustjax.federated._streams import ClientStream as ClientStream
from trustjax.federated._streams import Retention as Retention
from trustjax.federated._streams import (
  class_arrival_periods as class_arrival_periods,
)
from trustjax.federated._streams import drift_periods as drift_periods
from trustjax.federated._streams import iid_periods as iid_periods
from trustjax.federated._training import FederatedOptions as FederatedOptions
from trustjax.federated._training import FederatedResult as FederatedResult
from trustjax.federated._training import train_rounds as train_rounds
from trustjax.federated._user_level import UserLevelPlan as UserLevelPlan
from trustjax.federated._wire import WireBytes as WireBytes
from trustjax.federated._wire import tree_bytes as tree_bytes
from trustjax.federated._wire import wire_bytes as wire_bytes
