"""Release of trained weights: evaluation on held-out data, export, model cards."""
