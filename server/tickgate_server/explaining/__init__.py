"""One decision explained: its tick, its features, its prediction and why, its checks against their limits."""
