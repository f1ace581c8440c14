"""TrustJAX: high-throughput private training and trustworthy NLP in JAX.

Rooms, in the order in which a reader meets them:

  privacy     clipping engines and rules, noise, mechanisms, accounting
  models      taggers and encoders as records of pure functions, task losses
  data        corpora, tokenisation, fixed-shape arrays
  training    train state, step builder, loop, checkpoints
  attacks     membership inference, audits, extraction of canaries
  federated   partitions, selection, algorithms, rounds, user-level privacy
  fairness    association, likelihood, error gaps, generation, sensitivity
  distillation  counterfactual role reversal
  reporting   result records, intervals, tables, figures
"""
