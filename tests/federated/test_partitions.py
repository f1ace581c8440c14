"""Partitioners: what they promise, and the statistics they are known by."""

import numpy as np
import pytest
import scipy.spatial.distance

from trustjax import federated

# Training documents of each group of 20 Newsgroups (by date), in alphabetical
# order of the groups.
COUNTS = (
  *(480, 584, 591, 590, 578, 593, 585, 594, 598, 597),
  *(600, 595, 591, 594, 593, 599, 546, 564, 465, 377),
)
LABELS = np.repeat(np.arange(20), COUNTS)
# alpha -> (mean, sd over seeds) of classes per client, of the largest share
# and of the mean divergence; and the values of the legacy generator, seed 42.
GOLDEN = {
  0.1: ((4.58, 0.57), (0.773, 0.030), (0.881, 0.016), (4.93, 0.750, 0.866)),
  0.5: ((5.72, 0.47), (0.667, 0.028), (0.849, 0.015), (5.36, 0.705, 0.860)),
  1: ((6.86, 0.33), (0.580, 0.021), (0.812, 0.013), (6.61, 0.599, 0.827)),
  5: ((11.94, 0.24), (0.338, 0.011), (0.605, 0.011), (12.10, 0.317, 0.591)),
  10: ((14.89, 0.28), (0.250, 0.010), (0.462, 0.012), (15.15, 0.249, 0.453)),
  100: ((19.46, 0.10), (0.106, 0.001), (0.098, 0.006), (19.40, 0.104, 0.099)),
}


def measured(partition):
  shares = federated.label_shares(LABELS, partition)
  return (
    np.mean(np.sum(shares > 0, axis=1)),
    np.mean(shares.max(axis=1)),
    federated.mean_divergence(shares),
  )


def mixtures(clients, labels, seed=0):
  return np.random.default_rng(seed).dirichlet(np.ones(labels), size=clients)


PARTITIONERS = {
  "label": lambda y, k, rng: federated.dirichlet_label_partition(
    y, k, 0.5, rng
  ),
  "balanced": lambda y, k, rng: federated.balanced_label_partition(
    y, k, 0.5, rng
  ),
  "class": lambda y, k, rng: federated.class_dirichlet_partition(
    y, k, 1.0, rng
  ),
  "quantity": lambda y, k, rng: federated.quantity_partition(
    len(y), k, 2.0, rng
  ),
  "uniform": lambda y, k, rng: federated.uniform_partition(len(y), k, rng),
  "mixture": lambda y, k, rng: federated.mixture_partition(
    y,
    federated.scale_to_total(np.arange(1.0, k + 1), len(y)),
    mixtures(k, len(np.unique(y))),
    rng,
  ),
}


@pytest.mark.parametrize("name", PARTITIONERS)
def test_every_record_is_on_exactly_one_client(name):
  labels = np.random.default_rng(3).choice(
    ["a", "b", "c"], 157, p=[0.7, 0.2, 0.1]
  )
  partition = PARTITIONERS[name](labels, 9, np.random.default_rng(0))
  assert partition.num_clients == 9
  np.testing.assert_array_equal(
    np.sort(np.concatenate(partition.lists())), np.arange(157)
  )
  np.testing.assert_array_equal(
    partition.sizes, [len(client) for client in partition.lists()]
  )
  np.testing.assert_array_equal(partition.client(4), partition.lists()[4])


@pytest.mark.parametrize("name", PARTITIONERS)
def test_the_generator_decides_the_partition(name):
  labels = LABELS[::20]
  first, again, other = (
    PARTITIONERS[name](labels, 7, np.random.default_rng(seed))
    for seed in (5, 5, 6)
  )
  np.testing.assert_array_equal(first.indices, again.indices)
  assert not np.array_equal(first.indices, other.indices)


@pytest.mark.parametrize("alpha", GOLDEN)
@pytest.mark.parametrize("discard", [False, True])
def test_label_shift_has_the_known_heterogeneity(alpha, discard):
  partition = federated.dirichlet_label_partition(
    LABELS, 100, alpha, np.random.default_rng(7), discard_first_draw=discard
  )
  sizes = np.sort(partition.sizes)
  assert (sizes[0], np.median(sizes), sizes[-1]) == (113, 113, 127)
  for value, (mean, deviation) in zip(measured(partition), GOLDEN[alpha]):
    assert abs(value - mean) < 3 * deviation + 5e-3


@pytest.mark.parametrize("alpha", GOLDEN)
def test_label_shift_repeats_the_published_draws(alpha):
  partition = federated.dirichlet_label_partition(
    LABELS,
    100,
    alpha,
    np.random.RandomState(42),
    permute_ids=False,
    discard_first_draw=True,
  )
  # Half a unit of the last printed digit.
  np.testing.assert_allclose(
    measured(partition), GOLDEN[alpha][3], atol=5.01e-3
  )


def test_late_clients_inherit_leftovers_unless_balanced():
  rng = np.random.default_rng(0)

  def late_minus_early(partition):
    shares = federated.label_shares(LABELS, partition)
    classes = np.sum(shares > 0, axis=1)
    return classes[80:].mean() - classes[:20].mean()

  in_order = federated.dirichlet_label_partition(
    LABELS, 100, 0.1, rng, permute_ids=False
  )
  permuted = federated.dirichlet_label_partition(LABELS, 100, 0.1, rng)
  balanced = federated.balanced_label_partition(LABELS, 100, 0.1, rng)
  assert late_minus_early(in_order) > 4
  assert abs(late_minus_early(permuted)) < 3
  assert abs(late_minus_early(balanced)) < 1


@pytest.mark.parametrize(
  ("alpha", "divergence"),
  [
    (0.1, 0.923),
    (0.5, 0.906),
    (1, 0.858),
    (5, 0.590),
    (10, 0.422),
    (100, 0.066),
  ],
)
def test_balanced_shares_have_the_known_divergence(alpha, divergence):
  partition = federated.balanced_label_partition(
    LABELS, 100, alpha, np.random.default_rng(1)
  )
  assert set(partition.sizes) == {113, 114}
  value = federated.mean_divergence(partition.mixtures)
  assert abs(value - divergence) < 0.03


def test_test_split_may_reuse_the_training_mixtures():
  rng = np.random.default_rng(0)
  train = federated.dirichlet_label_partition(
    LABELS, 20, 1.0, rng, permute_ids=False
  )
  matched = federated.dirichlet_label_partition(
    LABELS, 20, 1.0, rng, mixtures=train.mixtures, permute_ids=False
  )
  independent = federated.dirichlet_label_partition(LABELS, 20, 1.0, rng)

  def distance(other):
    shares = federated.label_shares(LABELS, train)
    return np.abs(shares - federated.label_shares(LABELS, other)).sum(1).mean()

  assert distance(matched) < 0.2 < 0.6 < distance(independent)


@pytest.mark.parametrize(
  ("beta", "median", "largest", "variation"),
  [
    (1, 80, 581, 0.97),
    (5, 106, 280, 0.44),
    (10, 109, 222, 0.31),
    (100, 113, 143, 0.10),
  ],
)
def test_quantity_shift_has_the_known_sizes(beta, median, largest, variation):
  sizes = np.stack(
    [
      federated.quantity_partition(
        11_314, 100, beta, np.random.default_rng(seed)
      ).sizes
      for seed in range(30)
    ]
  )
  assert sizes.min() >= 1
  assert abs(np.median(sizes, axis=1).mean() / median - 1) < 0.05
  assert abs(sizes.max(axis=1).mean() / largest - 1) < 0.15
  spread = (sizes.std(axis=1) / sizes.mean(axis=1)).mean()
  assert abs(spread / variation - 1) < 0.1


def test_quantity_shift_gives_up_with_a_reason():
  with pytest.raises(ValueError, match="beta: got 0.01; none of 20 draws"):
    federated.quantity_partition(
      1000, 100, 0.01, np.random.default_rng(0), max_tries=20
    )


def test_natural_clients_follow_the_column():
  users = ["bo", "al", "bo", "cy", "al", "bo"]
  partition = federated.natural_partition(users)
  assert [client.tolist() for client in partition.lists()] == [
    [1, 4],
    [0, 2, 5],
    [3],
  ]


def test_uniform_sizes_differ_by_at_most_one():
  sizes = federated.uniform_partition(103, 10, np.random.default_rng(0)).sizes
  assert sorted(set(sizes)) == [10, 11]


def test_refilling_takes_in_proportion_to_what_is_left():
  # One client wants 10 of a label that has 2: the other 8 come from pools of
  # 4 and 12 in proportion, rounded up from the smaller pool on.
  labels = np.repeat([0, 1, 2], [2, 4, 12])
  shares = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
  partition = federated.mixture_partition(
    labels, np.array([10, 8]), shares, np.random.default_rng(0)
  )
  got = np.bincount(labels[partition.client(0)], minlength=3)
  assert got.tolist() == [2, 2, 6]


@pytest.mark.parametrize(
  ("indices", "offsets", "message"),
  [
    (
      [0, 1, 1],
      [0, 2, 3],
      r"records \[1\] more than once and \[2\] not at all",
    ),
    ([0, 2], [0, 2], r"\[1\] not at all"),
    ([0, 1], [0, 1], "offsets: got ends"),
    ([0, 1], [0, 2, 1, 2], "offsets: got ends"),
    ([-1, 0], [0, 2], "negative"),
  ],
)
def test_a_partition_that_loses_or_repeats_records_is_refused(
  indices, offsets, message
):
  with pytest.raises(ValueError, match=message):
    federated.Partition(indices=np.array(indices), offsets=np.array(offsets))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["label", "balanced", "class", "quantity"])
def test_concentrations_must_be_positive(name, alpha):
  rng = np.random.default_rng(0)
  call = {
    "label": lambda: federated.dirichlet_label_partition(LABELS, 3, alpha, rng),
    "balanced": lambda: federated.balanced_label_partition(
      LABELS, 3, alpha, rng
    ),
    "class": lambda: federated.class_dirichlet_partition(LABELS, 3, alpha, rng),
    "quantity": lambda: federated.quantity_partition(100, 3, alpha, rng),
  }[name]
  with pytest.raises(ValueError, match="(alpha|beta): got"):
    call()


def test_more_clients_than_records_are_refused():
  with pytest.raises(ValueError, match="num_clients: got 5"):
    federated.uniform_partition(4, 5, np.random.default_rng(0))


def test_sizes_and_mixtures_must_fit():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match="sizes: got a sum of 5"):
    federated.mixture_partition([0, 1, 1], np.array([2, 3]), np.eye(2), rng)
  with pytest.raises(ValueError, match="mixtures: got shape"):
    federated.mixture_partition([0, 1, 1], np.array([1, 2]), np.eye(3), rng)
  with pytest.raises(ValueError, match="sum to 1"):
    federated.mixture_partition(
      [0, 1, 1], np.array([1, 2]), np.full((2, 2), 0.4), rng
    )


def test_clusters_find_separated_directions():
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 3, 150)
  points = np.eye(8)[truth] + 0.05 * rng.normal(size=(150, 8))
  # Length carries no meaning: it is normalised away.
  points = points * rng.uniform(0.1, 10, size=(150, 1))
  labels = federated.cluster_labels(points, 3, np.random.default_rng(1))
  for cluster in range(3):
    assert len(set(truth[labels == cluster])) == 1
  again = federated.cluster_labels(points, 3, np.random.default_rng(1))
  np.testing.assert_array_equal(labels, again)


def test_clusters_of_equal_points_and_bad_input():
  labels = federated.cluster_labels(
    np.ones((5, 2)), 3, np.random.default_rng(0)
  )
  assert labels.shape == (5,)
  with pytest.raises(ValueError, match="num_clusters: got 6"):
    federated.cluster_labels(np.ones((5, 2)), 6, np.random.default_rng(0))
  with pytest.raises(ValueError, match="embeddings"):
    federated.cluster_labels(
      np.full((5, 2), np.nan), 2, np.random.default_rng(0)
    )


def test_divergence_has_its_known_values_and_agrees_with_scipy():
  shares = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
  matrix = federated.jensen_shannon_matrix(shares)
  np.testing.assert_allclose(
    matrix,
    [[0, 1, 0.311278], [1, 0, 0.311278], [0.311278, 0.311278, 0]],
    atol=1e-6,
  )
  rows = np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=12)
  matrix = federated.jensen_shannon_matrix(rows)
  for i in range(12):
    for j in range(12):
      distance = scipy.spatial.distance.jensenshannon(rows[i], rows[j])
      np.testing.assert_allclose(
        np.sqrt(matrix[i, j] * np.log(2)), distance, atol=1e-7
      )
  order = federated.heat_map_order(matrix)
  assert np.all(np.diff(matrix[order].sum(1)) <= 1e-12)


def test_statistics_report_the_noise_floor():
  rng = np.random.default_rng(0)
  uniform = federated.uniform_partition(len(LABELS), 100, rng)
  stats = federated.partition_statistics(LABELS, uniform, rng)
  # The floor of this data set, 0.064, within three sds of a single split.
  assert abs(stats.noise_floor - 0.064) < 3e-3
  assert abs(stats.mean_divergence - stats.noise_floor) < 3e-3
  shifted = federated.dirichlet_label_partition(LABELS, 100, 1.0, rng)
  stats = federated.partition_statistics(LABELS, shifted, rng)
  assert stats.mean_divergence > 10 * stats.noise_floor
  assert stats.sizes.tolist() == [113, 113, 113, 113, 127]
  assert stats.num_empty == 0


def test_empty_clients_are_counted_and_left_out_of_the_means():
  partition = federated.Partition.from_lists(
    [np.array([0, 1]), np.array([], int), np.array([2, 3])]
  )
  stats = federated.partition_statistics(
    [0, 0, 1, 1], partition, np.random.default_rng(0)
  )
  assert stats.num_empty == 1
  assert stats.mean_divergence == 1.0
  assert stats.classes_per_client == 1.0
  with pytest.raises(ValueError, match="labels: got 3"):
    federated.label_shares([0, 1, 1], partition)
