"""Labelled cohorts, synthetic or from a site, preprocessed by the node's own stages."""
