"""The live view: what an observer's metrics say now, for a terminal and for a page."""
