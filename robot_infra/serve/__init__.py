"""A robot on a computer of its own: `python -m robot_infra.serve` there, `environment.name=remote` at the actor."""
