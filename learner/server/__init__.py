"""The learner server: network, journal, inference, sealing."""
