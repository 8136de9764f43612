"""Metrics, statistics and figures from labels, probabilities and histories. Knows no tracking store."""
