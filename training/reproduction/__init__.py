"""The papers' evaluations, on synthetic cohorts shaped like theirs: one command a model."""
