"""Learns from labelled episodes to see success; starts with `python -m learner.train_reward`."""
