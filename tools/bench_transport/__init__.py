"""Camera steps per second and acknowledgement latency: hiors beside other transports, in the same run."""
