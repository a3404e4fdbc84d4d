"""The risk gate: what a signal asks for, and what stands between it and the market."""
