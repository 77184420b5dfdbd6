"""How chunks join when answers are late: switch, ensemble and real-time chunking on the simulated robot."""
