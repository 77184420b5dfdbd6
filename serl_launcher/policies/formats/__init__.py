"""Layouts of policies on disk: our own, LeRobot's, openpi's for PyTorch and (to read) openpi's for JAX.

Each is one module with `read(directory)` and, but for JAX, `write(stored, directory)`; what they exchange is one
`StoredPolicy`. Which one a directory has is decided by its files and the names of its tensors, never by its path.
"""

from serl_launcher.policies.formats.detection import READERS, WRITERS, format_of, read_stored, write_stored
from serl_launcher.policies.formats.stored import StoredPolicy, check_weights, merged

__all__ = ["READERS", "WRITERS", "StoredPolicy", "check_weights", "format_of", "merged", "read_stored", "write_stored"]
