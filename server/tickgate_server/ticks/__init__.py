"""What a tick must be before anything else sees it: instruments, validation, and each symbol's market state."""
