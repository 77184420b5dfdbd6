"""Jitter of the control loop."""
