"""Parts of the step benchmarks: clock, methods, peers, record."""
