"""Drivers of real robots."""
