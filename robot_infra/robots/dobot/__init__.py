"""Dobot X-Trainer: two Nova 2 arms over the documented TCP protocol, Feetech grippers, three cameras."""
