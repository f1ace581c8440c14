"""Knowledge distillation with counterfactual role reversal.

A student learns from a teacher that has read each text twice: as it stands,
and with the gender of its words exchanged (`data.swap_gender`). The way of a
text through this room:

  counterfactual_texts     text and swapped text -> pieces that correspond
  texts_of_arm             D; D and its swapped copies; or a coin for each text
  pack_pairs               pieces -> sequences of one length with an alignment
  distillation_loss        the loss of ONE sequence, for any trainer and plan

Its pieces, which can be used alone:

  align, POLICIES          positions of the two texts that correspond
  single_token_lexicon,
  keep_listed              swap only words that are one piece
  alignment_shares         how much the counterfactual teacher can change
  combine_teacher          max, mean, expMean, swap of two distributions
  vocabulary_permutation   the involution that swaps the teacher's words back
  distill_loss             divergence and next-token loss of arrays
  student_from_teacher     a student that begins as layers of its teacher
  ARMS, role_reversal_arm  the arms of a study
  distinct_n,
  mixed_pronouns           what a fairer model may lose
"""

from trustjax.distillation._alignment import POLICIES as POLICIES
from trustjax.distillation._alignment import Alignment as Alignment
from trustjax.distillation._alignment import (
  CounterfactualText as CounterfactualText,
)
from trustjax.distillation._alignment import align as align
from trustjax.distillation._alignment import (
  counterfactual_texts as counterfactual_texts,
)
from trustjax.distillation._alignment import keep_listed as keep_listed
from trustjax.distillation._alignment import (
  single_token_lexicon as single_token_lexicon,
)
from trustjax.distillation._arms import ARMS as ARMS
from trustjax.distillation._arms import NO_TEACHER as NO_TEACHER
from trustjax.distillation._arms import RoleReversalArm as RoleReversalArm
from trustjax.distillation._arms import role_reversal_arm as role_reversal_arm
from trustjax.distillation._arms import texts_of_arm as texts_of_arm
from trustjax.distillation._loss import ORIGINAL as ORIGINAL
from trustjax.distillation._loss import DistillLoss as DistillLoss
from trustjax.distillation._loss import distill_loss as distill_loss
from trustjax.distillation._loss import distillation_loss as distillation_loss
from trustjax.distillation._packing import alignment_shares as alignment_shares
from trustjax.distillation._packing import pack_pairs as pack_pairs
from trustjax.distillation._students import spread_layers as spread_layers
from trustjax.distillation._students import (
  student_from_teacher as student_from_teacher,
)
from trustjax.distillation._teacher import COMBINATIONS as COMBINATIONS
from trustjax.distillation._teacher import DOMAINS as DOMAINS
from trustjax.distillation._teacher import combine_teacher as combine_teacher
from trustjax.distillation._teacher import (
  vocabulary_permutation as vocabulary_permutation,
)
from trustjax.distillation._text_quality import MixedPronouns as MixedPronouns
from trustjax.distillation._text_quality import distinct_n as distinct_n
from trustjax.distillation._text_quality import (
  mixed_pronouns as mixed_pronouns,
)
