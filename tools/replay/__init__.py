"""Checks, repairs and rewrites replay datasets; nothing is ever deleted, and nothing is changed without `--yes`."""
