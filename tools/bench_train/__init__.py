"""Benchmark of the training loop: `make bench-train`."""
