"""Samples, updates, publishes, checkpoints. Starts with `loop`."""
