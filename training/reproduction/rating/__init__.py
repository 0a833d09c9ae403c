"""The rating paper's evaluation on a synthetic cohort shaped like the paper's."""
