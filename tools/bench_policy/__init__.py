"""Speed of the flow policy beside LeRobot 0.4.4's, on the same weights, inputs and noise, in one run."""
