"""Learns a Gymnasium task in one process, without sockets: the yardstick for the distributed service."""
