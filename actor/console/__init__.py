"""The operator console: a web page beside the control loop, which it never makes wait."""

from actor.console.console import Console

__all__ = ["Console"]
