"""Engine `bookkeeping`; the README beside this file explains it.

_views     what a value inside the loss shows of the parameters
_sites     where parameters meet data, as sums of outer products
_tape      runs the traced loss and taps its sites
_routes    how each leaf is handled, by cost
_norms     norms of sums of outer products, never too short
_factors   gradients and clipped sums of outer products
_engine    puts it together for a chunk of units
"""

from trustjax.privacy._engines._bookkeeping import _engine, _routes

bookkeeping_engine = _engine.bookkeeping_engine
TappedLoss = _engine.TappedLoss
memory_cost = _routes.memory_cost
node_cost = _routes.node_cost
