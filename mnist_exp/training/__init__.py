"""Trains Keras models: compiled epochs, checkpoints, callbacks, model files. Knows no tracking store."""
