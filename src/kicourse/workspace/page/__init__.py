"""The course map as a page of HTML."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kicourse.checks.render import inline
from kicourse.language import _, translate
from kicourse.syllabus import Part, Unit, course
from kicourse.workspace import progress
from kicourse.workspace.folder import Workspace
from kicourse.workspace.progress import CORE, Progress, Total, UnitProgress, is_on_route

# Each language in its own words, for the button that switches to it.
LANGUAGES = {"en": "English", "de": "Deutsch"}

WORDS = {
    "progress": _("Your progress"),
    "points_of": _("{points} of {max_points} points"),
    "tasks_of": _("{done} of {count} tasks solved"),
    "minutes": _("{minutes} min"),
    "route": _("Show the path of"),
    "everyone": _("Everyone"),
    "core": _("Core path"),
    "route_summary": _("{units} units, {written} of them written, {hours} h in all"),
    "start_here": _("Start here"),
    "go_on": _("Go on here"),
    "next_task": _("Next task:"),
    "start": _("Start"),
    "continue": _("Continue"),
    "done": _("Done"),
    "all_done": _("Every unit that there is so far is done. Well done!"),
    "coming": _("coming"),
    "builds_on": _("builds on"),
    "for_roles": _("For:"),
    "earlier": _("Your work on another edition of this unit:"),
    "files": _("All files"),
    "stopped": _("The course is not running any more. Start it again with:"),
    "passed": _("solved"),
    "partial": _("partly solved"),
    "failed": _("not solved yet"),
    "not_started": _("not started"),
    "given_up": _("given up"),
}


@dataclass(frozen=True)
class Links:
    """Where the page's links lead: the server's base address, and what proves that a form is the learner's own."""

    base: str
    xsrf: str


def render(workspace: Workspace, links: Links, route: str = "") -> str:
    """Return the course map of a workspace.

    `route` is progress.CORE, a role of the syllabus, or "" for everyone; an unknown one shows everyone's.
    """
    state = progress.read(workspace.root)
    route = route if route in _routes(state) else ""
    return (
        _environment()
        .get_template("map.html")
        .render(
            course=course(),
            headline=_headline(translate("syllabus", course().title, workspace.language)),
            titles={unit.slug: unit.title for unit in course().units},
            parts=_parts(state, route),
            total=state.total(route),
            next=state.next_unit(route),
            route=route,
            routes=_routes(state),
            on_route=state.on_route(route),
            shown={unit.unit.slug for unit in state.on_route(route)},
            workspace=workspace,
            links=links,
            revision=progress.revision(workspace.root),
            languages=LANGUAGES,
            core=CORE,
            **_speaking(workspace.language),
        )
    )


def _routes(state: Progress) -> list[str]:
    """The paths that can be shown: everyone's, the core, and each role that a unit names."""
    roles = [role for role in course().roles if any(role in unit.unit.roles for unit in state.units)]
    return ["", CORE, *roles]


def _parts(state: Progress, route: str) -> list[tuple[Part, list[UnitProgress]]]:
    """The parts that have units on the route, with these units."""
    parts = [(part, [unit for unit in units if is_on_route(unit.unit, route)]) for part, units in state.parts]
    return [(part, units) for part, units in parts if units]


def _headline(title: str) -> str:
    """Leave out the course's name, which stands at the top of the page: "kicourse: become ..." -> "Become ..."."""
    text = title.partition(": ")[2] or title
    return text[:1].upper() + text[1:]


def _speaking(language: str) -> dict[str, object]:
    """The functions through which the template says everything in one language."""

    def say(word: str, **values: object) -> str:
        return translate("kicourse", WORDS[word], language).format(**values)

    def title(text: str) -> str:
        return translate("syllabus", text, language)

    def task_title(unit: Unit, text: str) -> Markup:
        return Markup(inline(translate(unit.slug, text, language)))

    def number(value: float) -> str:
        from babel.numbers import format_decimal

        return str(format_decimal(value, format="0.##", locale=language))

    def route_name(route: str) -> str:
        return title(course().roles[route]) if route in course().roles else say("core" if route else "everyone")

    return {"say": say, "title": title, "task_title": task_title, "number": number, "route_name": route_name}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["hours"] = _hours
    return environment


def _percent(share: Total) -> float:
    return round(100 * share.points / share.max_points, 1) if share.max_points else 0


def _hours(units: Iterable[UnitProgress]) -> int:
    return round(sum(unit.unit.minutes for unit in units) / 60)
