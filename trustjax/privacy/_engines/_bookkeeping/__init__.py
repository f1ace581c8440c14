"""Engine `bookkeeping`; the README beside this file explains it.

_views     what a value inside the loss shows of the parameters
_sites     where parameters meet data, as sums of outer products
_tape      runs the traced loss and taps its sites
_routes    how each leaf is handled, by cost
_norms     norms of sums of outer products, never too short
_factors   gradients and clipped sums of outer products
_rows      tables of which only rows are read, and sums over these rows
_engine    puts it together for a chunk of units
"""

from trustjax.privacy._engines._bookkeeping import (
  _engine,
  _routes,
  _rows,
  _tape,
)

bookkeeping_engine = _engine.bookkeeping_engine
TappedLoss = _engine.TappedLoss
RowSum = _rows.RowSum
distinct_rows = _rows.distinct_rows
rows_read = _rows.rows_read
table_verdicts = _rows.table_verdicts
needed_inputs = _tape.needed_inputs
memory_cost = _routes.memory_cost
node_cost = _routes.node_cost
