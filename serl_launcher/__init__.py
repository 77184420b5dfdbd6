"""What learner and actor must agree on: specs, events, transport, datasets, policies, configuration."""
