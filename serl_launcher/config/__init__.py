"""The schema of every setting, and the one function that loads it. Values live in the folder `config`."""

from serl_launcher.config.loader import load, run_main
from serl_launcher.config.root import RunConfig

__all__ = ["RunConfig", "load", "run_main"]
