"""Measures serving: what a round trip costs beyond the model, many actors, publications, restarts."""
