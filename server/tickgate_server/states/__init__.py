"""What ticks made of a symbol, as bytes: states to go on from, vectors to read; and states that wait for a tick."""
