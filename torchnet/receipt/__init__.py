"""The receipt of a run: its model, its table, and the timing of training steps."""
