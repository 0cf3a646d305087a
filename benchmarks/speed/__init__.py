"""Time beside the peers and the loop by hand: the step, whole attacks, a training step."""
