"""Markdown as blocks: the pieces that are translated one by one."""

import re
from collections.abc import Callable

_FENCE = re.compile(r"\s*(```+|~~~+|\$\$)")
_HEADING = re.compile(r"#{1,6}\s")


def blocks(markdown: str) -> list[str]:
    """Split markdown at its blank lines. Fenced code and displayed formulas stay whole; headings stand alone."""
    found: list[list[str]] = [[]]
    fence = ""
    for line in markdown.splitlines():
        if fence:
            found[-1].append(line)
            fence = "" if line.strip().endswith(fence) else fence
        elif not line.strip():
            found.append([])
        elif _HEADING.match(line):
            found += [[line], []]
        else:
            found[-1].append(line)
            fence = _opened(line)
    return ["\n".join(lines) for lines in found if lines]


def translated(markdown: str, translate: Callable[[str], str]) -> str:
    """Return markdown with each of its blocks translated."""
    return "\n\n".join(translate(block) for block in blocks(markdown))


def _opened(line: str) -> str:
    """The fence that a line opens and does not close again, or nothing."""
    match = _FENCE.match(line)
    if not match:
        return ""
    rest = line[match.end() :].strip()
    return "" if rest.endswith(match[1]) else match[1]
