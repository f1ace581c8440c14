"""Reporting: result records, intervals, tables, figures, pages.

A map, in the order in which a binary uses it:

  Interval           an estimate with its confidence interval
  mean_interval, ... intervals over seeds, timings and proportions
  Results            the flat record of a run; protocol and comparison
  Claim, meets_bar   statements checked against an interval
  Table, Column      rows with units -> Markdown, CSV, console
  plot_*             learning curves, utility and privacy, step times
  write_run          config.json, results.json, tables, figures in a folder
  read_metrics       metrics.jsonl read back, also after a crash
  read_runs          everything that lies in workdirs
  render_html        several runs as one self-contained page

Nothing here trains, reads data sets or knows a mechanism: numbers come in,
and what people and machines read goes out, both from the same record.
"""

from trustjax.reporting._bars import (
  plot_step_time_ratios as plot_step_time_ratios,
)
from trustjax.reporting._claims import Claim as Claim
from trustjax.reporting._claims import Verdict as Verdict
from trustjax.reporting._claims import meets_bar as meets_bar
from trustjax.reporting._curves import Curve as Curve
from trustjax.reporting._curves import mean_curve as mean_curve
from trustjax.reporting._curves import (
  plot_epsilon_against_steps as plot_epsilon_against_steps,
)
from trustjax.reporting._curves import (
  plot_learning_curves as plot_learning_curves,
)
from trustjax.reporting._curves import smoothed as smoothed
from trustjax.reporting._figures import ArmStyle as ArmStyle
from trustjax.reporting._figures import arm_family as arm_family
from trustjax.reporting._figures import arm_label as arm_label
from trustjax.reporting._figures import arm_styles as arm_styles
from trustjax.reporting._figures import new_figure as new_figure
from trustjax.reporting._figures import save_figure as save_figure
from trustjax.reporting._figures import style as style
from trustjax.reporting._html import render_html as render_html
from trustjax.reporting._intervals import Interval as Interval
from trustjax.reporting._intervals import bootstrap_median as bootstrap_median
from trustjax.reporting._intervals import (
  bootstrap_ratio_of_medians as bootstrap_ratio_of_medians,
)
from trustjax.reporting._intervals import clopper_pearson as clopper_pearson
from trustjax.reporting._intervals import mean_interval as mean_interval
from trustjax.reporting._intervals import wilson as wilson
from trustjax.reporting._metrics import Metrics as Metrics
from trustjax.reporting._metrics import read_metrics as read_metrics
from trustjax.reporting._records import read_results as read_results
from trustjax.reporting._records import write_atomically as write_atomically
from trustjax.reporting._records import write_config as write_config
from trustjax.reporting._records import write_results as write_results
from trustjax.reporting._records import write_run as write_run
from trustjax.reporting._records import write_table as write_table
from trustjax.reporting._results import Results as Results
from trustjax.reporting._results import check_comparable as check_comparable
from trustjax.reporting._results import merge_results as merge_results
from trustjax.reporting._results import protocol_hash as protocol_hash
from trustjax.reporting._results import shared_keys as shared_keys
from trustjax.reporting._run import Run as Run
from trustjax.reporting._run import read_runs as read_runs
from trustjax.reporting._tables import Cell as Cell
from trustjax.reporting._tables import Column as Column
from trustjax.reporting._tables import Missing as Missing
from trustjax.reporting._tables import Table as Table
from trustjax.reporting._tables import arm_table as arm_table
from trustjax.reporting._tables import cell_of as cell_of
from trustjax.reporting._tables import comparison_table as comparison_table
from trustjax.reporting._tables import format_interval as format_interval
from trustjax.reporting._tables import format_number as format_number
from trustjax.reporting._tables import print_table as print_table
from trustjax.reporting._utility import UtilityPoint as UtilityPoint
from trustjax.reporting._utility import (
  plot_utility_against_epsilon as plot_utility_against_epsilon,
)
from trustjax.reporting._utility import utility_points as utility_points
