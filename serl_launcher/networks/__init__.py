"""Neural networks with the parameter names of the published checkpoints."""
