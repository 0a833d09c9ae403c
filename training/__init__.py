"""Cohorts, networks, training, evaluation, export, and reproduction of the papers' evaluations.

Training uses the worker's preprocessing stages, so that a network is trained on exactly what it
receives in the node. The node never imports this package. It runs ``python -m training
sample-study`` as a process, so that this command and ``training.synthetic`` need only what the node
itself needs.
"""
