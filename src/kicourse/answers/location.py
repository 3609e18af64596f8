"""Where in the learner's own code something happened."""

import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType


@dataclass(frozen=True)
class Location:
    """A line of the learner's code: its number in the cell (or file), its text, and the function it stands in.

    The function has its outer names, as in `Block.forward`.
    """

    line: int
    source: str
    function: str


@cache
def _foreign() -> tuple[str, ...]:
    """The folders whose code is not the learner's: Python, the installed packages, this one and what lies beside it."""
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(f"{folder}{os.sep}" for folder in (*folders, Path(__file__).resolve().parents[2]))


def _is_learners(code: CodeType) -> bool:
    name = code.co_filename
    generated = name.startswith(("<frozen", "<string>", "<__array_function__")) or name.endswith((".pyx", ".pxi"))
    return not generated and not name.startswith(_foreign())


def locate(frames: list[tuple[FrameType, int]]) -> Location | None:
    """Return the innermost of the frames (outermost first) that is the learner's own."""
    for frame, line in reversed(frames):
        if _is_learners(frame.f_code):
            source = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
            return Location(line, source[:200], frame.f_code.co_qualname)
    return None


def of_exception(error: BaseException) -> Location | None:
    """Where the learner's code raised `error`, or called what raised it."""
    if isinstance(error, SyntaxError) and error.lineno:
        return Location(error.lineno, (error.text or "").strip()[:200], "")
    return locate(_frames(error))


def is_raised_by_learner(error: BaseException) -> bool:
    """Whether the learner's own code raised `error`, and not something that it called."""
    frames = _frames(error)
    return bool(frames) and _is_learners(frames[-1][0].f_code)


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    frames: list[tuple[FrameType, int]] = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return frames


def of_thread(identity: int) -> Location | None:
    """Where the thread with this identity is now."""
    frames: list[tuple[FrameType, int]] = []
    frame = sys._current_frames().get(identity)
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return locate(frames[::-1])
