"""Speed, as ratios in one run: the input pipeline, the step, and what a whole run would take."""
