"""Serves policies by openpi's websocket protocol, so that any robot with `openpi-client` can be driven."""
