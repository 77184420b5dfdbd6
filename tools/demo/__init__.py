"""The whole main job on one machine: demonstrations, fine-tuning, online rejection sampling, evaluation, report."""
