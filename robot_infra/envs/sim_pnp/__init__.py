"""The embedded simulator: bimanual pick and place by instruction."""
