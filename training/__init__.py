"""Cohorts, networks, training, evaluation and export: where the weights come from.

It shares the preprocessing stages with the worker, so that a network sees in training exactly what
it is served. The node itself never imports it; ``training.synthetic`` needs no more than the node.
"""
