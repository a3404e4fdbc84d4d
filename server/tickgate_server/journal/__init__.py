"""The journal: every input that changes state and every decision, in the order applied."""
