"""Sweeps: a space, an oracle that proposes from it, an engine that runs the trials, and what they tell."""
