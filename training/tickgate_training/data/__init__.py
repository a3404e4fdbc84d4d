"""Where training data come from: one canonical table of ticks, and a reader for each source."""
