"""Parts of the federated studies: data, arms, contestants, record."""
