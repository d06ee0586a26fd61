"""Training: durations, schedule, optimizer groups, the step, the loop, checkpoints, signals."""
