"""Feeds the replay of one machine to others, so that ranks there read their own disk."""
