"""Trains a Keras model: compiled epochs, checkpoints, callbacks. Knows no tracking store."""
