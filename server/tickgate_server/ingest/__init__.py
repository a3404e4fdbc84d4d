"""Ticks that are published without a question: taken in by the message, applied in small slices, journaled, counted."""
