"""Severity model: network, training recipe, training, scores and saliency scores."""
