"""Parts of the fairness studies: models, probes, metrics, records."""
