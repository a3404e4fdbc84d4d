"""Why a stored value is not served."""

from enum import StrEnum


class Refusal(StrEnum):
    """What is wrong with a stored value; in the order it is looked at."""

    TRUNCATED = "truncated"  # shorter than it says, or than any can be
    GARBAGE = "garbage"  # no value of this kind at all
    VERSION = "version"  # another format's
    CHECKSUM = "checksum"  # changed since it was written
    SYMBOL = "symbol"  # another symbol's
    SCHEMA = "schema"  # of another feature set, or with windows of another size
    KERNELS = "kernels"  # computed by other kernels: its numbers are not those that would be computed here


class ValueRefused(Exception):
    """A stored value is not one that can be used here.

    Attributes:
        refusal: What is wrong with it.
        where: What it is: a key, or a file.
        why: What was expected, and what was found.
    """

    def __init__(self, refusal: Refusal, where: str, why: str) -> None:
        super().__init__(f"{where}: {refusal}: {why}")
        self.refusal = refusal
        self.where = where
        self.why = why
