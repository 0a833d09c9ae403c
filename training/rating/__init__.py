"""Rating model: network, training recipe, training, calibration and scores."""
