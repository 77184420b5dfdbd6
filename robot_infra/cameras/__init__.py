"""Cameras: what delivers pictures, each in a thread of its own, so that the control loop never waits for one."""
