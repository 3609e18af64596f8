"""One line of the results table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, what came out, what it stands beside, and what we aim at (empty where nothing is promised)."""

    what: str
    measured: str
    beside: str = ""
    aim: str = ""
