"""Why a criterion failed, in the learner's words."""

import traceback

from kicourse.answers import AnswerLost, AnswerRaised, AnswerRefused, AnswerTimedOut, NotStarted
from kicourse.answers.handle import Exchange
from kicourse.answers.location import Location
from kicourse.checks.show import show, show_call, visible
from kicourse.checks.trial import Failed
from kicourse.language import _, translate

_ONE_BY_ONE = "generator", "map", "filter", "zip", "dict_keys", "dict_values", "dict_items"
OWN_FAULT = _("Your answer led this check into a fault of its own ({detail}). Please report it.")


def explain(error: Exception, transcript: list[Exchange], unit: str) -> dict[str, str]:
    """Return the texts of a failed criterion: message, tried, got, expected, where.

    Where they cannot be made, for values of a kind that nobody has thought of, that is a fault of the check's too.
    """
    try:
        return _explained(error, transcript, unit)
    except Exception as fault:
        return {"message": _bug(fault)}


def _explained(error: Exception, transcript: list[Exchange], unit: str) -> dict[str, str]:
    last = _last_call(transcript)
    texts = {"tried": last.shown or show_call(last.call, *last.arguments) if last else ""}
    if isinstance(error, Failed):
        if error.tried:
            last, texts = None, {"tried": error.tried}
        got = error.got or _outcome(last)
        if got == error.expected:  # two arrays, say, that are shown by their shapes alone
            return texts | {"message": error.message}
        return texts | {"message": error.message, "expected": error.expected, "got": got}
    if isinstance(error, NotStarted):
        return {"message": _words(_("Not started yet."))}
    if isinstance(error, AnswerRaised):
        message = _words(_("Your code raised {error}.")).format(error=show(error).rstrip("."))
        return texts | {"message": message, "where": _where(error.location)}
    if isinstance(error, AnswerTimedOut):
        message = _words(_("Your code did not come back within {seconds:g} seconds.")).format(seconds=error.seconds)
        return texts | {"message": message, "where": _where(error.location)}
    if isinstance(error, AnswerRefused):
        return texts | {"message": _refused(error.found)}
    if isinstance(error, AnswerLost):
        return texts | {"message": _words(_("Your code ended the process it ran in.")), "got": str(error)}
    return texts | {"message": _bug(error)}


def _outcome(last: Exchange | None) -> str:
    """What came back; of an object that stayed on the answer's side only its type is known, which explains nothing."""
    if last is None or last.outcome is None or (last.kept and isinstance(last.outcome, str)):
        return ""
    return show(last.outcome)


def _last_call(transcript: list[Exchange]) -> Exchange | None:
    """The last thing tried that means something to a learner; a stream's pieces lead back to the call that made it."""
    calls = [exchange for exchange in transcript if not exchange.helper]
    return calls[-1] if calls else None


def _refused(found: str) -> str:
    words = found.split(" ", 1)[0]
    if words in ("nan", "inf", "-inf", "NaN", "Infinity", "-Infinity", "sNaN"):
        value, _at, place = found.partition(" at index ")
        if place:
            found = _words(_("{value} at index {place}")).format(value=value, place=place)
        return _words(_("Your code returned a number that is not finite: {found}.")).format(found=found)
    thing = found.removeprefix("an object of type ")
    if thing in _ONE_BY_ONE:
        message = _("Your code returned a `{name}`, which gives values one by one: `list(...)` makes a list of them.")
        return _words(message).format(name=thing)
    if thing != found:
        found = _words(_("an object of type `{name}`")).format(name=thing)
    return _words(_("Your code returned {found}, which this check cannot accept as a result.")).format(found=found)


def _where(place: Location | None) -> str:
    if place is None:
        return ""
    return _words(_("line {line}: {source}")).format(line=place.line, source=visible(place.source))


def _bug(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    detail = f"{type(error).__name__}: {error} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
    return _words(OWN_FAULT).format(detail=detail[:300])


def _words(message: str) -> str:
    return translate("kicourse", message)
