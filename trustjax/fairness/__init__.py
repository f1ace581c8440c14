"""Fairness metrics as pure functions of arrays, keys and callables.

By what they look at:

  vectors          weat, seat, ceat: association of word sets, with
                   weat_pvalue, weat_interval and random_effects
  decisions        group_rates, group_gaps, group_gaps_test, class_gaps
  scores           bias_aucs, pinned_auc_gaps, power_mean, group_calibration
  pairs            counterfactual_gap, template_gap, distributional_fairness
  likelihoods      ilps, lpbs, template_bias; stereoset; crows_pairs, with the
                   builders of their questions (template_queries,
                   stereoset_queries, pair_queries) for any tokeniser
  generated text   gender_label, gender_polarity, gender_ratio with
                   gender_ratio_noise; label_shares and label_gap_test for
                   sentiment, toxicity and regard; prompted_toxicity
  gradients        prediction_sensitivity (accumulated, token by token) with
                   lexicon_weights and swap_weights; its baseline
                   counterfactual_sensitivity; label_agreement,
                   compare_agreement with human labels
  many models      correlation_study, orient, holm, critical_correlation
  any statistic    bootstrap, permutation_null; `<metric>_bootstrap` draws the
                   records, items or prompts that a metric's interval needs

Every result carries the number of records behind it and the digest of its
`Protocol`; `check_comparable` refuses to compare unlike results. The docstring
of every metric has a note on its fidelity: what the paper defines, what public
code does, what is done here, and a verdict.

Nothing here knows a model or a data set: models come in as callables, texts as
indices and scores.
"""

from trustjax.fairness._agreement import Agreement as Agreement
from trustjax.fairness._agreement import (
  AgreementComparison as AgreementComparison,
)
from trustjax.fairness._agreement import compare_agreement as compare_agreement
from trustjax.fairness._agreement import label_agreement as label_agreement
from trustjax.fairness._agreement import steiger_test as steiger_test
from trustjax.fairness._association import WeatResult as WeatResult
from trustjax.fairness._association import association as association
from trustjax.fairness._association import hedges_variance as hedges_variance
from trustjax.fairness._association import weat as weat
from trustjax.fairness._association import weat_interval as weat_interval
from trustjax.fairness._bias_aucs import BiasAucs as BiasAucs
from trustjax.fairness._bias_aucs import auc as auc
from trustjax.fairness._bias_aucs import bias_aucs as bias_aucs
from trustjax.fairness._bias_aucs import (
  bias_aucs_bootstrap as bias_aucs_bootstrap,
)
from trustjax.fairness._bias_aucs import power_mean as power_mean
from trustjax.fairness._calibration import GroupCalibration as GroupCalibration
from trustjax.fairness._calibration import (
  group_calibration as group_calibration,
)
from trustjax.fairness._calibration import (
  group_calibration_bootstrap as group_calibration_bootstrap,
)
from trustjax.fairness._contextual import CeatResult as CeatResult
from trustjax.fairness._contextual import ceat as ceat
from trustjax.fairness._contextual import context_draws as context_draws
from trustjax.fairness._correlation_study import (
  CorrelationStudy as CorrelationStudy,
)
from trustjax.fairness._correlation_study import (
  correlation_study as correlation_study,
)
from trustjax.fairness._correlation_study import (
  critical_correlation as critical_correlation,
)
from trustjax.fairness._correlation_study import holm as holm
from trustjax.fairness._correlation_study import orient as orient
from trustjax.fairness._counterfactual import (
  CounterfactualGap as CounterfactualGap,
)
from trustjax.fairness._counterfactual import (
  counterfactual_gap as counterfactual_gap,
)
from trustjax.fairness._counterfactual import (
  counterfactual_gap_bootstrap as counterfactual_gap_bootstrap,
)
from trustjax.fairness._counterfactual import (
  distributional_fairness as distributional_fairness,
)
from trustjax.fairness._counterfactual import (
  distributional_group_fairness as distributional_group_fairness,
)
from trustjax.fairness._counterfactual import template_gap as template_gap
from trustjax.fairness._counterfactual import (
  template_gap_bootstrap as template_gap_bootstrap,
)
from trustjax.fairness._counterfactual import wasserstein as wasserstein
from trustjax.fairness._crows_pairs import CrowsPairsResult as CrowsPairsResult
from trustjax.fairness._crows_pairs import (
  causal_pair_scores as causal_pair_scores,
)
from trustjax.fairness._crows_pairs import crows_pairs as crows_pairs
from trustjax.fairness._crows_pairs import pair_queries as pair_queries
from trustjax.fairness._crows_pairs import shared_positions as shared_positions
from trustjax.fairness._crows_pairs import wilson_bounds as wilson_bounds
from trustjax.fairness._gap_noise import GroupGapsTest as GroupGapsTest
from trustjax.fairness._gap_noise import (
  SmallGroupWarning as SmallGroupWarning,
)
from trustjax.fairness._gap_noise import (
  group_gaps_test as group_gaps_test,
)
from trustjax.fairness._gap_noise import small_groups as small_groups
from trustjax.fairness._gender_polarity import FEMALE as FEMALE
from trustjax.fairness._gender_polarity import FEMALE_WORDS as FEMALE_WORDS
from trustjax.fairness._gender_polarity import GENDER_LABELS as GENDER_LABELS
from trustjax.fairness._gender_polarity import MALE as MALE
from trustjax.fairness._gender_polarity import MALE_WORDS as MALE_WORDS
from trustjax.fairness._gender_polarity import NEUTRAL as NEUTRAL
from trustjax.fairness._gender_polarity import TIE as TIE
from trustjax.fairness._gender_polarity import GenderPolarity as GenderPolarity
from trustjax.fairness._gender_polarity import gender_label as gender_label
from trustjax.fairness._gender_polarity import (
  gender_polarity as gender_polarity,
)
from trustjax.fairness._gender_polarity import (
  gender_projection as gender_projection,
)
from trustjax.fairness._gender_polarity import (
  gender_word_counts as gender_word_counts,
)
from trustjax.fairness._gender_polarity import text_tokens as text_tokens
from trustjax.fairness._gender_ratio import GenderRatio as GenderRatio
from trustjax.fairness._gender_ratio import RatioNoise as RatioNoise
from trustjax.fairness._gender_ratio import gender_ratio as gender_ratio
from trustjax.fairness._gender_ratio import (
  gender_ratio_bootstrap as gender_ratio_bootstrap,
)
from trustjax.fairness._gender_ratio import (
  gender_ratio_noise as gender_ratio_noise,
)
from trustjax.fairness._group_rates import ClassGaps as ClassGaps
from trustjax.fairness._group_rates import GroupGaps as GroupGaps
from trustjax.fairness._group_rates import GroupRates as GroupRates
from trustjax.fairness._group_rates import class_gaps as class_gaps
from trustjax.fairness._group_rates import group_gaps as group_gaps
from trustjax.fairness._group_rates import group_rates as group_rates
from trustjax.fairness._partitions import PartitionTest as PartitionTest
from trustjax.fairness._partitions import (
  equal_partitions as equal_partitions,
)
from trustjax.fairness._partitions import weat_pvalue as weat_pvalue
from trustjax.fairness._pinned_auc import (
  pinned_auc_bootstrap as pinned_auc_bootstrap,
)
from trustjax.fairness._pinned_auc import pinned_auc_gaps as pinned_auc_gaps
from trustjax.fairness._pooling import PooledEffect as PooledEffect
from trustjax.fairness._pooling import random_effects as random_effects
from trustjax.fairness._prediction_sensitivity import REDUCTIONS as REDUCTIONS
from trustjax.fairness._prediction_sensitivity import SPACES as SPACES
from trustjax.fairness._prediction_sensitivity import ClassFn as ClassFn
from trustjax.fairness._prediction_sensitivity import (
  PredictionSensitivity as PredictionSensitivity,
)
from trustjax.fairness._prediction_sensitivity import (
  prediction_sensitivity as prediction_sensitivity,
)
from trustjax.fairness._protocol import Protocol as Protocol
from trustjax.fairness._protocol import check_comparable as check_comparable
from trustjax.fairness._queries import CausalQueries as CausalQueries
from trustjax.fairness._queries import LogProbFn as LogProbFn
from trustjax.fairness._queries import MaskedQueries as MaskedQueries
from trustjax.fairness._queries import Subwords as Subwords
from trustjax.fairness._queries import causal_queries as causal_queries
from trustjax.fairness._queries import masked_queries as masked_queries
from trustjax.fairness._queries import (
  mean_probability_by_item as mean_probability_by_item,
)
from trustjax.fairness._queries import score_causal as score_causal
from trustjax.fairness._queries import score_masked as score_masked
from trustjax.fairness._queries import sum_by_item as sum_by_item
from trustjax.fairness._resampling import Bootstrap as Bootstrap
from trustjax.fairness._resampling import PermutationNull as PermutationNull
from trustjax.fairness._resampling import bootstrap as bootstrap
from trustjax.fairness._resampling import permutation_null as permutation_null
from trustjax.fairness._sensitivity_inputs import (
  counterfactual_sensitivity as counterfactual_sensitivity,
)
from trustjax.fairness._sensitivity_inputs import (
  lexicon_weights as lexicon_weights,
)
from trustjax.fairness._sensitivity_inputs import swap_weights as swap_weights
from trustjax.fairness._sentence_association import POOLINGS as POOLINGS
from trustjax.fairness._sentence_association import pool_hidden as pool_hidden
from trustjax.fairness._sentence_association import seat as seat
from trustjax.fairness._stereoset import StereoSetResult as StereoSetResult
from trustjax.fairness._stereoset import (
  causal_stereoset_scores as causal_stereoset_scores,
)
from trustjax.fairness._stereoset import icat as icat
from trustjax.fairness._stereoset import stereoset as stereoset
from trustjax.fairness._stereoset import (
  stereoset_interval as stereoset_interval,
)
from trustjax.fairness._stereoset import stereoset_queries as stereoset_queries
from trustjax.fairness._template_bias import TemplateBias as TemplateBias
from trustjax.fairness._template_bias import causal_ilps as causal_ilps
from trustjax.fairness._template_bias import ilps as ilps
from trustjax.fairness._template_bias import lpbs as lpbs
from trustjax.fairness._template_bias import template_bias as template_bias
from trustjax.fairness._template_bias import (
  template_queries as template_queries,
)
from trustjax.fairness._text_scores import REGARD_LABELS as REGARD_LABELS
from trustjax.fairness._text_scores import SENTIMENT_LABELS as SENTIMENT_LABELS
from trustjax.fairness._text_scores import LabelGapTest as LabelGapTest
from trustjax.fairness._text_scores import LabelShares as LabelShares
from trustjax.fairness._text_scores import PromptedToxicity as PromptedToxicity
from trustjax.fairness._text_scores import ScoreFn as ScoreFn
from trustjax.fairness._text_scores import label_gap_test as label_gap_test
from trustjax.fairness._text_scores import label_shares as label_shares
from trustjax.fairness._text_scores import mask_mentions as mask_mentions
from trustjax.fairness._text_scores import (
  prompted_toxicity as prompted_toxicity,
)
from trustjax.fairness._text_scores import score_texts as score_texts
from trustjax.fairness._text_scores import sentiment_label as sentiment_label
from trustjax.fairness._text_scores import toxic_label as toxic_label
