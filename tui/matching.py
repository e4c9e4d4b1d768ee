"""Which texts a typed one means, and where in them it is found.

In one pass over a text, whoever wrote it: Textual's own matcher tries every way in which
the letters can be found, which takes minutes for one long name of a feature.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Match(NamedTuple):
    score: float
    """More is better; 0 is no match."""
    positions: Sequence[int]
    """Indices of the characters that were found."""


NONE = Match(0.0, ())


def match(typed: str, text: str) -> Match:
    """`typed` as it stands, else each of its words, else its letters in their order."""
    wanted, within = typed.lower().strip(), text.lower()
    if not wanted or not text or len(within) != len(text):  # a few letters are two in lower case
        return NONE
    at = within.find(wanted)
    if at >= 0:
        begins = at == 0 or not within[at - 1].isalnum()
        return Match(3.0 + begins + len(wanted) / len(text), range(at, at + len(wanted)))
    words = [(within.find(word), len(word)) for word in wanted.split()]
    if all(start >= 0 for start, _ in words):
        found = sorted({at for start, length in words for at in range(start, start + length)})
        return Match(2.0, found)
    return _letters(wanted.replace(" ", ""), within)


def _letters(wanted: str, within: str) -> Match:
    """The first place of each letter behind the one before; closer together is better."""
    positions: list[int] = []
    for letter in wanted:
        at = within.find(letter, positions[-1] + 1 if positions else 0)
        if at < 0:
            return NONE
        positions.append(at)
    return Match(len(positions) / (positions[-1] - positions[0] + 1), positions)
