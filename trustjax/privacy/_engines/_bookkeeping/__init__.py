"""Engine `bookkeeping`; the README beside this file explains it.

_views     what a value inside the loss shows of the parameters
_sites     where parameters meet data, as sums of outer products
_tape      runs the traced loss and taps its sites
_routes    how each leaf is handled, by cost
_factors   norms and clipped sums of outer products
_engine    puts it together for a chunk of units
"""

from trustjax.privacy._engines._bookkeeping import _engine, _routes

bookkeeping_engine = _engine.bookkeeping_engine
TappedLoss = _engine.TappedLoss
MEMORY_COST = _routes.MEMORY_COST
node_cost = _routes.node_cost
