"""How a check reaches an answer: one handle, one data-only codec, in the kernel and in grading alike."""

from kicourse.answers.codec import Record, as_tuple
from kicourse.answers.errors import (
    AnswerError,
    AnswerLost,
    AnswerRaised,
    AnswerRefused,
    AnswerTimedOut,
    NotStarted,
)
from kicourse.answers.handle import Handle, Session
from kicourse.answers.thread import ThreadConnection

__all__ = [
    "AnswerError",
    "AnswerLost",
    "AnswerRaised",
    "AnswerRefused",
    "AnswerTimedOut",
    "Handle",
    "NotStarted",
    "Record",
    "Session",
    "ThreadConnection",
    "as_tuple",
]
