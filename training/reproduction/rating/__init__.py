"""Reproduction of the rating paper's evaluation: cross-validation, ablation, baseline, report."""
