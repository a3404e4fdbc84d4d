"""Market data on its way to a server: where it comes from, and how it is published.

`publisher` and `blocking` publish; `sources` is what brings ticks, with adapters `redis_streams`, `recorded` and
`simulator`; `feeding` joins both, and `tickgate feed` runs it.
"""
