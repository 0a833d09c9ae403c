"""Rating model: network, training recipe, training and scores."""
