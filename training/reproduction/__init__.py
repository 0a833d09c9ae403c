"""Reproduction of both papers' evaluations, on synthetic cohorts or on a site's cohort."""
