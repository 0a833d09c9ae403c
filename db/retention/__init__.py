"""Retention: which files and details are removed when, and how they are removed safely."""
