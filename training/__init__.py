"""Cohorts, networks, training, evaluation, export, and reproduction of the papers' evaluations.

Training uses the worker's preprocessing stages, so that a network is trained on exactly what it
receives in the node. The node never imports this package, except for ``training.synthetic``, which
generates its demonstration study and needs no further dependencies.
"""
