"""Grading: from a closed study to its grade and report, one attempt at a time."""
