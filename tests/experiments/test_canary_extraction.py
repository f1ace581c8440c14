"""The canary binary: its data, its defences, its record."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.canary_extraction import (
  clinc150,
  default,
  nlu_evaluation,
  snips_grid,
  snips_pin,
)
from experiments import canary_extraction
from experiments._attacks import _canary_attack, _canary_data, _canary_record
from experiments._private_training import _early_stopping
from tests.training import tiny_task
from trustjax import attacks, models, privacy, reporting, training


def tiny_config(**changes):
  config = default.get_config()
  config.update(
    {
      "arms": ("none",),
      "data": {"max_length": 12},
      "model": {"name": "mean_pool", "dim": 8, "window": 1},
      "non_private": {"num_steps": 60, "batch_size": 16},
      "private": {"num_steps": 3, "expected_batch_size": 16},
      "attack": {
        "num_trials": 3,
        "pool_size": 60,
        "block": 2,
        "search": {"steps": 40, "patience": 20, "restarts": 2},
      },
    }
  )
  # "hidden_dim" belongs to the default's BiLSTM.
  with config.model.ignore_type():
    config.model.hidden_dim = None
  config.canaries = (("pin", 2, 20),)
  for name, value in changes.items():
    config[name] = value
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp("canaries")
  canary_extraction.run(tiny_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_the_record_has_the_promised_keys(finished):
  folder, results = finished
  key = "none/pin_n2_r20"
  for name in ("accuracy", "hamming", "exposure_mean"):
    low, high = results[f"{key}/{name}_low"], results[f"{key}/{name}_high"]
    assert low <= results[f"{key}/{name}"] <= high
  assert 1 <= results[f"{key}/rank_median"] <= 100
  assert results[f"{key}/trials"] == 3
  assert 0 <= results["none/intent_accuracy"] <= 1
  assert results[f"{key}/epsilon_group"] is None
  figure = (folder / "figures/extraction.png").read_bytes()
  assert figure.startswith(b"\x89PNG")
  assert "pin_n2_r20" in (folder / "table.md").read_text()


def test_a_repeated_code_is_memorised(finished):
  _, results = finished
  # A model that knows nothing: 1.4 bits on average, 6.6 at most.
  assert results["none/pin_n2_r20/exposure_mean"] > 3


@pytest.mark.slow
def test_a_private_arm_states_the_epsilon_of_all_copies(tmp_path):
  canary_extraction.run(tiny_config(arms=("dp_sgd",)), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  assert 7.9 < results["dp_sgd/epsilon"] <= 8
  group = results["dp_sgd/pin_n2_r20/epsilon_group"]
  assert group > 5 * results["dp_sgd/epsilon"]
  assert results["dp_sgd/pin_n2_r20/accuracy_ceiling"] == 1


def test_finished_trials_are_read_not_attacked_again(finished, monkeypatch):
  folder, results = finished

  def attacked_again(*args, **kwargs):
    raise AssertionError("attacked again")

  monkeypatch.setattr(
    canary_extraction._canary_attack, "attack", attacked_again
  )
  canary_extraction.run(tiny_config(), folder)
  again = reporting.read_results(folder / "results.json")
  assert dict(again) == dict(results)


def test_canaries_stand_in_their_own_models_training_only():
  config = tiny_config()
  made = _canary_data.make_data(config, chars=False)
  cells = [
    _canary_data.Cell(pattern=attacks.PIN, length=2, copies=5),
    _canary_data.Cell(pattern=attacks.CALL, length=2, copies=0),
  ]
  examples, member = _canary_data.insert(
    made, cells, 3, seed=1, deduplicate=False
  )
  assert member.shape == (6, 60 + 15)
  assert member[:, :60].all()
  np.testing.assert_array_equal(member[:, 60:].sum(axis=1), [5, 5, 5, 0, 0, 0])
  codes = _canary_data.draw_codes(cells[0], 3, 1)
  for model in range(3):
    rows = examples["tokens"][member[model]][60:]
    words = made.vocabulary.decode(rows[0][rows[0] > 0])
    expected = [*attacks.PIN.prefix, *(str(k) for k in codes[model])]
    assert words == expected
    assert (rows == rows[0]).all()
  label = made.intents.index("canary")
  for split in ("validation", "test"):
    assert not (made.splits[split]["intent"] == label).any()
  _, single = _canary_data.insert(made, cells, 3, seed=1, deduplicate=True)
  assert single.shape == (6, 60 + 3)


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("mean_pool", {"dim": 6}),
    ("bilstm", {"dim": 5, "hidden_dim": 4, "num_chars": 100}),
    pytest.param(
      "transformer",
      {"num_layers": 1, "dim": 8, "num_heads": 2, "ff_dim": 8},
      marks=pytest.mark.slow,
    ),
  ],
)
def test_the_attackers_loss_at_the_code_is_the_models_own(name, fields):
  """Hard tokens, cut to the canary: minus the joint log-likelihood."""
  config = tiny_config()
  made = _canary_data.make_data(config, chars="num_chars" in fields)
  model = models.make_model(
    name,
    vocab_size=len(made.vocabulary),
    num_intents=len(made.intents),
    num_slots=len(made.slot_labels),
    max_length=made.max_length,
    **fields,
  )
  cell = _canary_data.Cell(pattern=attacks.PIN, length=3, copies=1)
  codes = np.array([[3, 1, 4]])
  params = jax.jit(model.init)(jax.random.key(0))
  trials = _canary_attack.make_trials(made, cell, params, codes)
  # Nothing that the attacker holds tells the code.
  blind = _canary_attack.make_trials(made, cell, params, np.zeros((1, 3), int))
  np.testing.assert_array_equal(
    trials["canary"]["tokens"], blind["canary"]["tokens"]
  )
  trial = trials | {
    "canary": {k: jnp.asarray(v[0]) for k, v in trials["canary"].items()},
    "candidates": {
      k: jnp.asarray(v[0]) for k, v in trials["candidates"].items()
    },
  }
  loss = jax.jit(_canary_attack.token_loss(model, 4, 3, "both"))(
    jnp.asarray(codes[0]), trial
  )
  own = {k: v[0] for k, v in made.canaries(attacks.PIN, codes).items()}
  logits = jax.jit(model.apply)(params, own)
  stats = attacks.record_statistics(
    np.asarray(logits.intent)[None],
    np.asarray(logits.slots)[None],
    own["intent"][None],
    np.where(own["slot_mask"], own["slots"], -1)[None],
    own["mask"][None],
  )
  np.testing.assert_allclose(loss, stats.loss[0], rtol=1e-5)


def test_a_trials_start_does_not_depend_on_the_blocks(monkeypatch):
  """A save interval must not change what is found."""
  cell = _canary_data.Cell(pattern=attacks.PIN, length=2, copies=1)
  drawn = []

  def extract(loss, length, num, keys, **kwargs):
    drawn.append(jax.random.key_data(keys))
    tokens = jnp.zeros((len(keys), length), jnp.int32)
    return types.SimpleNamespace(tokens=tokens, loss=tokens[:, 0])

  monkeypatch.setattr(_canary_attack.attacks, "extract_canaries", extract)
  searches = {"softmax": attacks.RelaxedSearch()}
  for first, size in ((0, 3), (0, 2), (2, 1)):
    _canary_attack.attack(
      models.make_model(
        "mean_pool", vocab_size=9, num_intents=2, num_slots=2, max_length=6
      ),
      {},
      cell,
      np.zeros((size, 2), int),
      searches=searches,
      part="both",
      max_completions=1,
      chunk_size=None,
      seed=3,
      first=first,
    )
  whole, start, rest = drawn
  np.testing.assert_array_equal(whole, np.concatenate([start, rest]))
  assert len(np.unique(np.asarray(whole), axis=0)) == 3


def test_defences_are_compared_trial_by_trial():
  """Eight codes that only the undefended models give away: p = 2 / 2^8."""
  config = tiny_config(arms=("none", "dropout", "all"))
  cell = _canary_data.Cell(pattern=attacks.PIN, length=2, copies=20)
  found = np.arange(10) < 8
  bits = np.linspace(4.0, 6.0, 10)
  trials = {
    "none": _canary_record.Trials(success=found, bits=bits),
    "dropout": _canary_record.Trials(success=found[::-1], bits=bits),
    "all": _canary_record.Trials(
      success=np.zeros(10, bool), bits=bits - np.arange(1.0, 11)
    ),
  }
  results = reporting.Results()
  _canary_record.compare(
    results, config, [cell], {k: {cell.name: v} for k, v in trials.items()}
  )
  key = f"all/{cell.name}"
  assert results[f"{key}/p_accuracy"] == pytest.approx(2 / 2**8)
  assert results[f"{key}/p_accuracy_holm"] == pytest.approx(2 * 2 / 2**8)
  # All ten signed ranks on one side.
  assert results[f"{key}/p_exposure"] == pytest.approx(2 / 2**10)
  # Two pairs for either side; and no difference at all.
  assert results[f"dropout/{cell.name}/p_accuracy"] == 1
  assert results[f"dropout/{cell.name}/p_exposure_holm"] == 1
  for arm, accuracy in (("none", 0.8), ("dropout", 0.8), ("all", 0.0)):
    results.set(f"{arm}/{cell.name}/accuracy", accuracy)
    results.set(f"{arm}/{cell.name}/exposure_mean", 5.0 - 5 * (arm == "all"))
  accuracy, exposure = _canary_record._comparison_notes(results, config, [cell])
  assert "pin_n2_r20: all below (p 0.016)" in accuracy
  assert "dropout" not in accuracy and "all below" in exposure


def test_nothing_is_compared_without_an_undefended_arm(finished):
  results = reporting.Results()
  _canary_record.compare(results, tiny_config(arms=("all",)), [], {})
  assert not dict(results)
  assert not [key for key in finished[1] if "/p_" in key]


@pytest.mark.slow
@pytest.mark.parametrize(("copies", "epsilon"), [(1, 2.74), (2, 6.02)])
def test_group_epsilon_known_answers(copies, epsilon):
  """SNIPS, batch 256, 511 steps, sigma 1, delta 1e-5."""
  plan = privacy.DpSgdPlan.make(
    num_records=13_084,
    expected_batch_size=256,
    rule=privacy.AutoClip(),
    num_steps=511,
    noise_multiplier=1.0,
  )
  found, reason = _canary_attack.group_epsilon(plan, copies, 1e-5)
  assert not reason
  assert abs(found - epsilon) < 0.01


def test_group_epsilon_without_an_answer_says_why():
  plan = tiny_task.plan(noise_multiplier=0.0)
  assert _canary_attack.group_epsilon(plan, 3, 1e-5)[0] is None
  assert _canary_attack.group_epsilon(plan, 0, 1e-5) == (0.0, "")
  decaying = tiny_task.plan(
    schedule=privacy.NoiseSchedule(kind="exponential", period=2, decay=0.9)
  )
  found, reason = _canary_attack.group_epsilon(decaying, 3, 1e-5)
  assert found is None and "schedule" in reason


def test_early_stopping_goes_back_and_stays():
  """A validation loss that is best at step 4 and rises from there."""
  init, step = training.make_step(tiny_task.loss_fn, optax.sgd(0.1))
  plan = tiny_task.plan()
  seen = []

  def lot(t):
    return plan.draw_lot(tiny_task.examples(), seed=1, step=t)

  key = jax.random.key(0)
  state, path = init(tiny_task.params()), []
  for t in range(8):
    state, _ = step(state, lot(t), key)
    path.append(jax.device_get(state.params))
  at_four = path[3]

  def distance(params):
    moved = jax.tree.map(jnp.subtract, params, at_four)
    return optax.tree.norm(moved)

  stopping = _early_stopping.with_early_stopping(
    training.make_step(tiny_task.loss_fn, optax.sgd(0.1)),
    distance,
    every=2,
    start=0,
  )
  state = stopping[0](tiny_task.params())
  for t in range(8):
    state, _ = stopping[1](state, lot(t), key)
    seen.append(jax.device_get(state.params))
  for t in range(4):
    assert tiny_task.trees_equal(seen[t], path[t])
  # Compared at step 6, where the loss had risen: back to step 4 for good.
  assert tiny_task.trees_equal(seen[5], at_four)
  assert tiny_task.trees_equal(seen[7], at_four)
  assert int(state.step) == 8
  with pytest.raises(ValueError, match="got every 0"):
    _early_stopping.with_early_stopping(stopping, distance, every=0, start=0)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"arms": ("hope",)}, r"config.arms: got \['hope'\]; allowed are"),
    ({"arms": ("chars",)}, "reads no characters"),
    ({"canaries": (("pun", 4, 1),)}, "got pattern 'pun'; allowed are"),
    ({"canaries": (("pin", 0, 1),)}, "got length 0 for 'pin'"),
    ({"canaries": ()}, "config.canaries: got none"),
    (
      {"patterns": ({"name": "x", "prefix": ("a",), "candidates": ("b",)},)},
      "a code needs at least 2",
    ),
  ],
)
def test_bad_fields_are_named(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    canary_extraction.run(tiny_config(**changes), tmp_path)
  assert not (tmp_path / "results.json").exists()


def test_configs_are_those_of_the_binary():
  for module in (default, snips_pin, snips_grid, nlu_evaluation, clinc150):
    config = module.get_config()
    canary_extraction.check(config)
    json.dumps(config.to_dict())
  names = [c.name for c in _canary_data.make_cells(snips_grid.get_config())]
  assert "colour_n4_r100" in names and "pin_n6_r500" in names
