"""The checksum of a record: 64 bits over all its words but the checksum's own, and over the sequence it is to have.

A record is 96 little-endian words of 64 bits; word 0 is the sequence, word 1 the checksum. Four lanes start at SEED,
lane 0 at SEED ^ sequence. Words 2 and 3 go into lanes 2 and 3, and then each word k from 4 on into lane k mod 4, by
mix(lane, word) = rotate_left((lane ^ word) * PRIME, 29). In the end h = lane 0, then h = mix(h, lane) for lanes 1 to 3,
and the checksum is h ^ (h >> 32), all modulo 2^64.

Every step is a bijection of what it changes: a record that differs in one word always has another checksum, and one
that differs in several has the same with probability 2^-64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

WORDS = 96
PRIME = np.uint64(0x9E3779B185EBCA87)
SEED = np.uint64(0x27D4EB2F165667C5)

_LEFT, _RIGHT, _HALF = np.uint64(29), np.uint64(35), np.uint64(32)


@kernel("uint64(uint64[::1], int64, uint64)")
def checksum(words: NDArray[np.uint64], at: int, sequence: int) -> int:
    """Checksum of the record whose word 0 is `words[at]`, as if its sequence were `sequence`."""
    a = SEED ^ sequence
    b = SEED
    c = (SEED ^ words[at + 2]) * PRIME
    c = (c << _LEFT) | (c >> _RIGHT)
    d = (SEED ^ words[at + 3]) * PRIME
    d = (d << _LEFT) | (d >> _RIGHT)
    for k in range(at + 4, at + WORDS, 4):
        a = (a ^ words[k]) * PRIME
        a = (a << _LEFT) | (a >> _RIGHT)
        b = (b ^ words[k + 1]) * PRIME
        b = (b << _LEFT) | (b >> _RIGHT)
        c = (c ^ words[k + 2]) * PRIME
        c = (c << _LEFT) | (c >> _RIGHT)
        d = (d ^ words[k + 3]) * PRIME
        d = (d << _LEFT) | (d >> _RIGHT)
    a = (a ^ b) * PRIME
    a = (a << _LEFT) | (a >> _RIGHT)
    a = (a ^ c) * PRIME
    a = (a << _LEFT) | (a >> _RIGHT)
    a = (a ^ d) * PRIME
    a = (a << _LEFT) | (a >> _RIGHT)
    result: int = a ^ (a >> _HALF)
    return result


@kernel("void(uint64[::1], int64, uint64)")
def seal(words: NDArray[np.uint64], at: int, sequence: int) -> None:
    """Store the checksum of the record at `words[at]`, whose sequence is going to be `sequence`."""
    words[at + 1] = checksum(words, at, sequence)


@kernel("int64(uint64[::1], uint64)")
def count_whole(words: NDArray[np.uint64], first_sequence: int) -> int:
    """How many leading records are whole and have the sequences `first_sequence`, `first_sequence` + 1, ..."""
    count = 0
    for at in range(0, words.size, WORDS):
        sequence: Any = first_sequence + np.uint64(count)
        if words[at] != sequence or words[at + 1] != checksum(words, at, sequence):
            return count
        count += 1
    return count
