"""What a trained model reveals of its data: attacks, audits, extraction.

By what the attacker has:

  statistics       record_statistics (joint intent and slot models; in float64,
                   or fused into a jitted forward pass),
                   statistics_from_log_probabilities, logit_of_log_probability
  no shadow model  loss_threshold_scores and loss_threshold_guesses (Yeom),
                   confidence_scores with random_input_threshold (Salem)
  shadow models    lira_scores online and offline, lira_vector_scores for
                   several statistics; rmia_scores with tune_rmia_a and
                   taylor_softmax_log_probability; posterior_features,
                   fit_attack_classifier, attack_classifier_scores (Shokri,
                   Salem)
  how well         roc_curve, auc, tpr_at_fpr; attack_metrics and group_metrics
                   with intervals; clopper_pearson
  what DP allows   tpr_ceiling, tpr_ceiling_from_profile,
                   balanced_accuracy_ceiling, extraction_ceiling,
                   group_privacy; gdp_epsilon, gdp_delta, gdp_mu, gdp_tpr
  audits           one run: OneRunPlan, fixed before training, with
                   choose_num_guesses and expected_correct_guesses; its parts
                   count_correct_guesses, one_run_p_value,
                   one_run_epsilon_lower_bound, one_run_mu_lower_bound,
                   one_run_fdp_rejected
                   many runs: audit_error_rates, subsampled_log_ratio
                   canaries: mislabelled_records, gradient_canaries with
                   gradient_canary_scores, opposed_gradients against clip groups
  canary codes     CanaryPattern, make_canary, draw_codes, candidate_ids,
                   insertion_positions
                   relaxed search through a frozen model: extract_canary,
                   extract_canaries on a canary_loss, with mix_candidates and
                   relaxed_mixture
                   exhaustive: score_completions, completion_index, exposure
                   over trials: extraction_metrics, bootstrap_mean

Scores are larger for likelier members. Matrices are [models, records]; a
target of None attacks each model with all the others as its shadows. Every
figure is an `Estimate` with an interval, or with the reason why there is none.
The docstring of every method has a note on its fidelity: what the paper
defines, what public code does, what is done here, and a verdict.

Nothing here knows a model or a data set: statistics come in as arrays, models
as callables.
"""

from trustjax.attacks._canaries import CALL as CALL
from trustjax.attacks._canaries import COLOUR as COLOUR
from trustjax.attacks._canaries import COLOURS as COLOURS
from trustjax.attacks._canaries import DIGITS as DIGITS
from trustjax.attacks._canaries import PIN as PIN
from trustjax.attacks._canaries import Canary as Canary
from trustjax.attacks._canaries import CanaryPattern as CanaryPattern
from trustjax.attacks._canaries import candidate_ids as candidate_ids
from trustjax.attacks._canaries import draw_codes as draw_codes
from trustjax.attacks._canaries import (
  insertion_positions as insertion_positions,
)
from trustjax.attacks._canaries import make_canary as make_canary
from trustjax.attacks._ceilings import (
  balanced_accuracy_ceiling as balanced_accuracy_ceiling,
)
from trustjax.attacks._ceilings import extraction_ceiling as extraction_ceiling
from trustjax.attacks._ceilings import group_privacy as group_privacy
from trustjax.attacks._ceilings import tpr_ceiling as tpr_ceiling
from trustjax.attacks._ceilings import (
  tpr_ceiling_from_profile as tpr_ceiling_from_profile,
)
from trustjax.attacks._crafted import gradient_canaries as gradient_canaries
from trustjax.attacks._crafted import (
  gradient_canary_scores as gradient_canary_scores,
)
from trustjax.attacks._crafted import mislabelled_records as mislabelled_records
from trustjax.attacks._error_rates import ErrorRateAudit as ErrorRateAudit
from trustjax.attacks._error_rates import audit_error_rates as audit_error_rates
from trustjax.attacks._error_rates import opposed_gradients as opposed_gradients
from trustjax.attacks._error_rates import (
  subsampled_log_ratio as subsampled_log_ratio,
)
from trustjax.attacks._exposure import MAX_COMPLETIONS as MAX_COMPLETIONS
from trustjax.attacks._exposure import Exposure as Exposure
from trustjax.attacks._exposure import ExtractionMetrics as ExtractionMetrics
from trustjax.attacks._exposure import bootstrap_mean as bootstrap_mean
from trustjax.attacks._exposure import completion_index as completion_index
from trustjax.attacks._exposure import exposure as exposure
from trustjax.attacks._exposure import extraction_metrics as extraction_metrics
from trustjax.attacks._exposure import score_completions as score_completions
from trustjax.attacks._extraction import Extraction as Extraction
from trustjax.attacks._extraction import RelaxedSearch as RelaxedSearch
from trustjax.attacks._extraction import canary_loss as canary_loss
from trustjax.attacks._extraction import extract_canaries as extract_canaries
from trustjax.attacks._extraction import extract_canary as extract_canary
from trustjax.attacks._extraction import mix_candidates as mix_candidates
from trustjax.attacks._extraction import relaxed_mixture as relaxed_mixture
from trustjax.attacks._gaussian_dp import gdp_delta as gdp_delta
from trustjax.attacks._gaussian_dp import gdp_epsilon as gdp_epsilon
from trustjax.attacks._gaussian_dp import gdp_mu as gdp_mu
from trustjax.attacks._gaussian_dp import gdp_tpr as gdp_tpr
from trustjax.attacks._intervals import Estimate as Estimate
from trustjax.attacks._intervals import clopper_pearson as clopper_pearson
from trustjax.attacks._lira import lira_scores as lira_scores
from trustjax.attacks._lira import lira_vector_scores as lira_vector_scores
from trustjax.attacks._metrics import AttackMetrics as AttackMetrics
from trustjax.attacks._metrics import attack_metrics as attack_metrics
from trustjax.attacks._metrics import group_metrics as group_metrics
from trustjax.attacks._one_run import OneRunPlan as OneRunPlan
from trustjax.attacks._one_run import OneRunResult as OneRunResult
from trustjax.attacks._one_run import choose_num_guesses as choose_num_guesses
from trustjax.attacks._one_run import (
  count_correct_guesses as count_correct_guesses,
)
from trustjax.attacks._one_run import (
  expected_correct_guesses as expected_correct_guesses,
)
from trustjax.attacks._one_run import (
  one_run_epsilon_lower_bound as one_run_epsilon_lower_bound,
)
from trustjax.attacks._one_run import (
  one_run_fdp_rejected as one_run_fdp_rejected,
)
from trustjax.attacks._one_run import (
  one_run_mu_lower_bound as one_run_mu_lower_bound,
)
from trustjax.attacks._one_run import one_run_p_value as one_run_p_value
from trustjax.attacks._rmia import rmia_scores as rmia_scores
from trustjax.attacks._rmia import (
  taylor_softmax_log_probability as taylor_softmax_log_probability,
)
from trustjax.attacks._rmia import tune_rmia_a as tune_rmia_a
from trustjax.attacks._roc import RocCurve as RocCurve
from trustjax.attacks._roc import auc as auc
from trustjax.attacks._roc import roc_curve as roc_curve
from trustjax.attacks._roc import tpr_at_fpr as tpr_at_fpr
from trustjax.attacks._shadow_classifier import (
  AttackClassifier as AttackClassifier,
)
from trustjax.attacks._shadow_classifier import (
  attack_classifier_scores as attack_classifier_scores,
)
from trustjax.attacks._shadow_classifier import (
  fit_attack_classifier as fit_attack_classifier,
)
from trustjax.attacks._shadow_classifier import (
  posterior_features as posterior_features,
)
from trustjax.attacks._statistics import RecordStatistics as RecordStatistics
from trustjax.attacks._statistics import (
  logit_of_log_probability as logit_of_log_probability,
)
from trustjax.attacks._statistics import record_statistics as record_statistics
from trustjax.attacks._statistics import (
  statistics_from_log_probabilities as statistics_from_log_probabilities,
)
from trustjax.attacks._threshold import confidence_scores as confidence_scores
from trustjax.attacks._threshold import (
  loss_threshold_guesses as loss_threshold_guesses,
)
from trustjax.attacks._threshold import (
  loss_threshold_scores as loss_threshold_scores,
)
from trustjax.attacks._threshold import (
  random_input_threshold as random_input_threshold,
)
