"""Recording, sealing, sampling and opening a replay dataset, beside LeRobot in the same run."""
