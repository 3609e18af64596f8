"""What can go wrong with an answer, as a check sees it."""

from kicourse.answers.location import Location


class AnswerError(Exception):
    """Something went wrong on the answer's side. `location` is the line of the learner's code, where it is known."""

    location: Location | None = None


class AnswerRaised(AnswerError):
    """The learner's code raised an exception.

    `type_names` are the names of its class and base classes, most special first; `text` is its message.
    """

    def __init__(self, type_names: tuple[str, ...], text: str, location: Location | None) -> None:
        super().__init__(f"{type_names[0]}: {text}")
        self.type_names, self.text, self.location = type_names, text, location


class NotStarted(AnswerError):
    """A task's stub is still there, at `location`: it raised NotImplementedError."""

    def __init__(self, location: Location) -> None:
        super().__init__("not started")
        self.location = location


class AnswerTimedOut(AnswerError):
    """The learner's code took longer than `seconds`; `location` is where it was then."""

    def __init__(self, seconds: float, location: Location | None) -> None:
        super().__init__(f"no result after {seconds:g} s")
        self.seconds, self.location = seconds, location


class AnswerRefused(AnswerError):
    """What came back is not data, or out of bounds; `found` says what it was."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


class AnswerLost(AnswerError):
    """The answer's side has gone: its process ended, or what it sends makes no sense."""
