"""Whether what was served is what training computes: `tickgate parity`.

file_ticks  the ticks of a file that the rules let through, by symbol
served      a journal's decisions, with the vectors that were scored
comparing   each vector beside the batch features of the same tick, bit for bit
"""
