"""Robots and simulators behind one interface, the people beside them, and the safety limits."""
