"""The learner: takes episodes in, keeps the replay dataset, updates the policy and publishes it."""
