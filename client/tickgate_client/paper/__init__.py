"""A whole desk on paper: recorded ticks, a server, its client, a paper venue, fills, and what came of it."""
