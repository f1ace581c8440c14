"""Binaries: one absl program per question, thin over the library.

A module here is a program, `python -m experiments.NAME`; what several of them
share, or what would make one of them long, is in a package beside them:

  _binary            flags, errors, Ctrl-C: the edge of every program
  _benchmarks        the clock of all races; methods and peers of a step
  _private_training  arms of private training, also under attack and federated
  _attacks           shadow models, audits, canaries
  _federated         devices, cohorts, peers
  _fairness          planted models, probes, metrics
  _role_reversal     texts, arms, generations, claims
"""
