"""Policies: observations to action chunks. Importing this package imports torch."""

from serl_launcher.policies.checkpoints import build_policy, load_policy, policy_hash, save_policy
from serl_launcher.policies.normalization import NormStats
from serl_launcher.policies.pi0 import Pi0Policy

__all__ = ["NormStats", "Pi0Policy", "build_policy", "load_policy", "policy_hash", "save_policy"]
