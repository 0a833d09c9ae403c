"""Release: evaluating a trained model, exporting it, writing its model card."""
