"""Numbers and pictures from labels, probabilities and histories. Knows no tracking store."""
