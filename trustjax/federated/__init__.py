"""Federated training: clients, selection, algorithms, rounds."""

from trustjax.federated._activity import activity_deciles as activity_deciles
from trustjax.federated._activity import (
  lognormal_activity as lognormal_activity,
)
from trustjax.federated._activity import scale_to_total as scale_to_total
from trustjax.federated._activity import zipf_activity as zipf_activity
from trustjax.federated._balanced import (
  balanced_label_partition as balanced_label_partition,
)
from trustjax.federated._clusters import cluster_labels as cluster_labels
from trustjax.federated._cohort import ClientBatches as ClientBatches
from trustjax.federated._cohort import Cohort as Cohort
from trustjax.federated._draws import poisson_rates as poisson_rates
from trustjax.federated._draws import (
  successive_inclusion as successive_inclusion,
)
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
from trustjax.federated._scores import STRATEGIES as STRATEGIES
from trustjax.federated._scores import Strategy as Strategy
from trustjax.federated._scores import log_scores as log_scores
from trustjax.federated._selection import SAMPLINGS as SAMPLINGS
from trustjax.federated._selection import WEIGHTINGS as WEIGHTINGS
from trustjax.federated._selection import (
  inclusion_probabilities as inclusion_probabilities,
)
from trustjax.federated._selection import select_clients as select_clients
