"""The network between actors and the learner: messages, sockets, keys and the client of an actor."""
