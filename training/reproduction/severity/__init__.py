"""Reproduction of the severity paper's evaluation: design, final test, saliency, report."""
