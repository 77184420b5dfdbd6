"""Replay: reads LeRobot v3 datasets in place, decides which steps are drawn, and assembles training batches."""
