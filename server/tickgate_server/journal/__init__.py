"""The journal: every input that changes state and every decision, in the order applied.

`writer` appends, `reader` follows from any process, `verify` checks a folder; `layout` owns every layout.
"""
