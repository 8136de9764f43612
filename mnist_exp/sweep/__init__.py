"""Sweeps: a space, a sampler that proposes values from it, an engine that runs the trials, and a report."""
