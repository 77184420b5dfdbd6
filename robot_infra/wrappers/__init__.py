"""Robots made of other robots: each wrapper changes one thing and says so in its spec."""
