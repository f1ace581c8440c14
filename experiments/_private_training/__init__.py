"""Parts of the private-training study: arms, training, record."""
