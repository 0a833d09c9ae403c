"""Grading, in the database: claims on a revision, and the results of an attempt."""
