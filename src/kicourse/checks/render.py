"""Verdicts as HTML, in the colours of the notebook's theme, and as text."""

import re
from html import escape

from kicourse.checks.verdict import Result, Verdict
from kicourse.language import _, language, translate

_MARKS = {"passed": "✓", "failed": "✗", "not_reached": "·"}
# JupyterLab's own variables follow its theme; the fallbacks serve nbgrader's feedback pages and classic viewers.
_COLOURS = {
    "passed": "var(--jp-success-color1, #2e7d32)",
    "partial": "var(--jp-warn-color1, #b26a00)",
    "failed": "var(--jp-error-color1, #c62828)",
    "error": "var(--jp-error-color1, #c62828)",
    "not_started": "var(--jp-ui-font-color2, #757575)",
    "not_reached": "var(--jp-ui-font-color2, #757575)",
    "hint": "var(--jp-info-color1, #1565c0)",
}
STATUS = {
    "passed": _("passed"),
    "partial": _("partly passed"),
    "failed": _("not passed yet"),
    "not_started": _("not started"),
    "error": _("error"),
}
_LABELS = {
    "tried": _("tried"),
    "got": _("got"),
    "expected": _("expected"),
    "where": _("where"),
}
_DIAGNOSIS = _("Where it fails, your answer behaves exactly like {mistake}. That may be the cause.")
_NOT_REACHED = _("not reached")


def as_text(verdict: Verdict) -> str:
    """Return a verdict as plain text, a line a criterion and its details below."""
    lines = [f"{verdict.title}: {_headline(verdict)}"]
    notes = [f"  ! {note}" for note in verdict.notes]
    if verdict.status == "not_started":
        return "\n".join([*lines, *notes])
    for result in verdict.criteria:
        reached = "" if result.status != "not_reached" else f" ({_words(_NOT_REACHED)})"
        lines.append(f"  {_MARKS[result.status]} {result.title}{reached}{_share(result)}")
        lines.extend(f"      {line}" for detail in _details(result) for line in detail.splitlines())
    if verdict.diagnosis:
        lines.append(f"  → {_diagnosis(verdict)}")
    lines.extend(notes)
    if _has_failures(verdict):
        lines.append(f"  {_stuck(verdict)}")
    return "\n".join(lines)


def as_html(verdict: Verdict) -> str:
    """Return a verdict as HTML; every text that came from an answer is escaped."""
    rows = "" if verdict.status == "not_started" else "".join(_row(result) for result in verdict.criteria)
    diagnosis = f'<p style="margin:.5em 0 0"><b>{inline(_diagnosis(verdict))}</b></p>' if verdict.diagnosis else ""
    notes = "".join(f'<p style="margin:.5em 0 0">{inline(note)}</p>' for note in verdict.notes)
    if _has_failures(verdict):
        notes += f'<p style="margin:.5em 0 0;opacity:.8">{inline(_stuck(verdict))}</p>'
    head = f"<b>{escape(verdict.title)}</b> — {escape(_headline(verdict))}"
    listed = f'<ul style="list-style:none;margin:.4em 0 0;padding:0">{rows}</ul>' if rows else ""
    return frame(head + listed + diagnosis + notes, verdict.status, is_html=True)


def frame(content: str, status: str, *, is_html: bool = False) -> str:
    """Put content into the box that every message of the package wears."""
    inside = content if is_html else inline(content)
    # The classes keep MathJax away: what stands between dollars is code, or an answer's own text.
    return (
        '<div class="kicourse tex2jax_ignore mathjax_ignore" '
        f'style="border-left:4px solid {_COLOURS[status]};padding:.5em .9em;margin:.3em 0;'
        f'line-height:1.45;max-width:60em">{inside}</div>'
    )


def inline(text: str) -> str:
    """Escape a text and set what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def code(source: str) -> str:
    """Return source code as a block."""
    return f'<pre style="overflow-x:auto"><code>{escape(source)}</code></pre>'


def _row(result: Result) -> str:
    colour = _COLOURS[result.status]
    mark = f'<span style="color:{colour};font-weight:bold">{_MARKS[result.status]}</span>'
    reached = f" <i>({escape(_words(_NOT_REACHED))})</i>" if result.status == "not_reached" else ""
    details = "".join(f"<div>{line}</div>" for line in _html_details(result))
    box = f'<div style="margin:.1em 0 .3em 1.4em;font-size:.95em;overflow-wrap:anywhere">{details}</div>'
    title = f"{mark} {inline(result.title)}{reached}{_share(result)}"
    return f'<li style="margin:.15em 0">{title}{box if details else ""}</li>'


def _html_details(result: Result) -> list[str]:
    lines = [f"<b>{inline(result.message)}</b>"] if result.message else []
    lines += [f"{escape(_words(label))}: {_value(value)}" for label, value in _labelled(result)]
    return lines + ([f"<i>{inline(result.why)}</i>"] if result.why and result.status == "failed" else [])


def _value(text: str) -> str:
    """Set a value as code; one of several lines keeps them."""
    style = ' style="display:block;white-space:pre-wrap"' if "\n" in text else ""
    return f"<code{style}>{escape(text)}</code>"


def _details(result: Result) -> list[str]:
    lines = [result.message] if result.message else []
    lines += [f"{_words(label)}: {value}" for label, value in _labelled(result)]
    return lines + ([result.why] if result.why and result.status == "failed" else [])


def _labelled(result: Result) -> list[tuple[str, str]]:
    values = {"tried": result.tried, "got": result.got, "expected": result.expected, "where": result.where}
    return [(_LABELS[name], value) for name, value in values.items() if value]


def _headline(verdict: Verdict) -> str:
    points = f"{_number(verdict.points)}/{_number(verdict.max_points)}"
    return f"{_words(STATUS[verdict.status])}, {points} {_words(_('points'))}"


def _share(result: Result) -> str:
    return f" ({_number(result.points)}/{_number(result.max_points)})" if result.max_points else ""


def _number(points: float) -> str:
    """Write points as the reader's language does: 0.5 or 0,5."""
    from babel.numbers import format_decimal

    return str(format_decimal(points, locale=language()))


def _diagnosis(verdict: Verdict) -> str:
    return _words(_DIAGNOSIS).format(mistake=verdict.diagnosis)


def _has_failures(verdict: Verdict) -> bool:
    return any(result.status == "failed" for result in verdict.criteria)


def _stuck(verdict: Verdict) -> str:
    return _words(_("Stuck? `check.{task}.hint()`")).format(task=verdict.task)


def _words(message: str) -> str:
    return translate("kicourse", message)
