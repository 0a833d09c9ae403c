"""Cohorts: labelled scans, synthetic or a site's own, through the node's own preprocessing."""
