"""Level 2 of the feature store: vectors and states in Redis, for others and for a warm start; off the hot path."""
