"""The metrics of the correlation study, and which of them belong together."""

import dataclasses

import numpy as np

from experiments._fairness import _model_family
from trustjax import fairness


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
  """One metric of the study.

  Attributes:
    key: Its name in a model's measures.
    kind: How `fairness.orient` turns it; larger is then more biased.
    notion: "occupations" or "judgement".
    what: "intrinsic", "frozen", "tuned" or "generation".
    saturates: Why it need not rise with the planted level, or "".
  """

  key: str
  kind: str
  notion: str
  what: str
  saturates: str = ""

  @property
  def name(self) -> str:
    """Short name, for keys of the record."""
    return self.key.partition("/")[2].replace("/", "_")


_BOUNDED = "bounded: every pair is decided long before the level is 1"
_NEIGHBOURS = (
  "similarity of vectors mixes syntax with gender; the planted signal is one"
  " direction among many"
)
_FROZEN = (
  "the head reads what the frozen encoder tells: with the level that is more of"
  " the judgement itself (the AUC within a group rises), and less of gender"
)

INTRINSIC = (
  Axis(
    key="intrinsic/weat/occupations",
    kind="signed",
    notion="occupations",
    what="intrinsic",
    saturates=_NEIGHBOURS,
  ),
  Axis(
    key="intrinsic/seat/occupations",
    kind="signed",
    notion="occupations",
    what="intrinsic",
    saturates="bounded: the effect size nears its largest value of 2",
  ),
  Axis(
    key="intrinsic/ceat/occupations",
    kind="signed",
    notion="occupations",
    what="intrinsic",
    saturates=_NEIGHBOURS,
  ),
  Axis(
    key="intrinsic/lpbs/occupations",
    kind="signed",
    notion="occupations",
    what="intrinsic",
  ),
  Axis(
    key="intrinsic/stereoset_ss/occupations",
    kind="per_cent",
    notion="occupations",
    what="intrinsic",
    saturates=_BOUNDED,
  ),
  Axis(
    key="intrinsic/crows_pairs/occupations",
    kind="per_cent",
    notion="occupations",
    what="intrinsic",
    saturates="bounded, and scores the words that both sentences share",
  ),
  Axis(
    key="intrinsic/causal_lpbs/occupations",
    kind="signed",
    notion="occupations",
    what="intrinsic",
  ),
  Axis(
    key="intrinsic/causal_stereoset_ss/occupations",
    kind="per_cent",
    notion="occupations",
    what="intrinsic",
    saturates=_BOUNDED,
  ),
  Axis(
    key="intrinsic/causal_pairs/occupations",
    kind="per_cent",
    notion="occupations",
    what="intrinsic",
    saturates=_BOUNDED,
  ),
  Axis(
    key="intrinsic/weat/opinions",
    kind="signed",
    notion="judgement",
    what="intrinsic",
    saturates=_NEIGHBOURS,
  ),
  Axis(
    key="intrinsic/ceat/opinions",
    kind="signed",
    notion="judgement",
    what="intrinsic",
    saturates=_NEIGHBOURS,
  ),
  Axis(
    key="intrinsic/lpbs/opinions",
    kind="signed",
    notion="judgement",
    what="intrinsic",
  ),
  Axis(
    key="intrinsic/causal_lpbs/opinions",
    kind="signed",
    notion="judgement",
    what="intrinsic",
  ),
)

EXTRINSIC = (
  Axis(
    key="extrinsic/gender_ratio_mean/occupations",
    kind="ratio",
    notion="occupations",
    what="generation",
  ),
  Axis(
    key="extrinsic/polarity_unigram/occupations",
    kind="signed",
    notion="occupations",
    what="generation",
  ),
  Axis(
    key="extrinsic/polarity_max/occupations",
    kind="signed",
    notion="occupations",
    what="generation",
  ),
  Axis(
    key="extrinsic/sentiment_gap/negative",
    kind="gap",
    notion="judgement",
    what="generation",
  ),
  Axis(
    key="extrinsic/regard_gap/negative",
    kind="gap",
    notion="judgement",
    what="generation",
  ),
  *(
    Axis(
      key=f"extrinsic/{encoder}/{name}",
      kind=kind,
      notion="judgement",
      what=encoder,
      saturates=why or (_FROZEN if encoder == "frozen" else ""),
    )
    for encoder in _model_family.ENCODERS
    for name, kind, why in (
      (
        "demographic_parity_difference/gender",
        "gap",
        "decisions move in steps: few strengths lie near the threshold",
      ),
      ("bnsp_auc/female", "auc", ""),
      ("counterfactual_gap/gender", "gap", ""),
    )
  ),
)


def oriented(
  measures: list[dict[str, float]], axes: tuple[Axis, ...]
) -> tuple[tuple[Axis, ...], np.ndarray]:
  """Values [models, metrics], larger is more biased; nan where not measured.

  Metrics that no model has (those of an objective left out) are dropped.
  """
  kept = tuple(a for a in axes if any(a.key in found for found in measures))
  columns = [
    fairness.orient(
      np.array([found.get(axis.key, np.nan) for found in measures]), axis.kind
    )
    for axis in kept
  ]
  return kept, np.stack(columns, axis=1)


def ablations(
  intrinsic: tuple[Axis, ...], extrinsic: tuple[Axis, ...]
) -> dict[str, np.ndarray]:
  """Declared grids of cells [intrinsic, extrinsic], by what they align."""
  same = np.array(
    [[i.notion == e.notion for e in extrinsic] for i in intrinsic]
  )
  grids = {"all": np.ones_like(same), "same_notion": same}
  grids["other_notion"] = ~same
  for what in ("frozen", "tuned", "generation"):
    rows = np.array([e.what == what for e in extrinsic])
    grids[what] = np.broadcast_to(rows, same.shape).copy()
    grids[f"{what}_same_notion"] = grids[what] & same
  return {name: grid for name, grid in grids.items() if grid.any()}
