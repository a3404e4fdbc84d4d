"""Feature sets: what a model's inputs are, how they are computed, and each symbol's state (level 1 of the store)."""
