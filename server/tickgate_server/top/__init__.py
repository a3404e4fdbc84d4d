"""`tickgate top`: the live view of a server on the terminal, read from its metrics alone."""
