"""The checks of `rag`: answers with sources. Models are scripted, and so is what retrieval finds."""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kicourse.answers import NotStarted
from kicourse.answers.handle import unobserved
from kicourse.checks import AnswerRaised, Check, Failed, Handle, Record, Trial, _, chats
from kicourse.checks.scripted_server import Completion, Failure, Reply, ScriptedServer
from kicourse.checks.show import show

if TYPE_CHECKING:
    import numpy as np


def _texts(trial: Trial, value: Any) -> list[str]:
    """Return a list or tuple of texts as a list."""
    trial.is_a(value, (list, tuple))
    for text in value:
        trial.is_a(text, str)
    return list(value)


def _lines(rng: "np.random.Generator", count: int, words: int = 7) -> list[str]:
    """Return lines that no answer can know, each different from the others."""
    return [f"{chats.sentence(rng, words=words)}-{number}" for number in range(count)]


# ---------------------------------------------------------------- build_prompt

build_prompt = Check(
    "rag",
    "build_prompt",
    title=_("Sources in a prompt"),
    hints=(
        _("What has to be in every prompt, however small the budget? And who wrote the texts that you put between your "
          "marks?"),
        _("Write a small function that makes a text harmless, by the two rules. Then leave the budget aside: build the "
          "two messages with all sources, and count their contents as they are. What has to change, and how often, "
          "until they fit?"),
        _("Harmless: `\" \".join(text.split())`, and `replace` for the brackets. `for shown in range(len(sources), -1, "
          "-1):` build `lines = [f\"[{n}] {harmless(text)}\" for n, text in enumerate(sources[:shown], 1)] + "
          "[f\"Question: {harmless(question)}\"]`; if `count_tokens(instructions) + count_tokens(\"\\n\".join(lines)) "
          "<= budget`, return the prompt. After the loop `raise ValueError(...)`."),
    ),
)  # fmt: skip


@unobserved
def _count_words(text: str) -> int:
    return len(text.split())


@unobserved
def _count_quarters(text: str) -> int:
    return math.ceil(len(text) / 4)


@unobserved
def _count_framed(text: str) -> int:
    """Count a beginning and an end as well, as the tokenizers of many models do: two texts cost them twice."""
    return len(text.split()) + 4


Counter = Callable[[str], int]
_COUNTERS: tuple[Counter, ...] = (_count_words, _count_quarters, _count_framed)


def _harmless(text: str) -> str:
    """Return a text on one line, without square brackets."""
    return " ".join(text.split()).replace("[", "(").replace("]", ")")


def _user_text(question: str, sources: Sequence[str]) -> str:
    """Return the user's message with all of these sources."""
    numbered = [f"[{number}] {_harmless(source)}" for number, source in enumerate(sources, start=1)]
    return "\n".join([*numbered, f"Question: {_harmless(question)}"])


def _prompt_size(count: Counter, instructions: str, question: str, sources: Sequence[str]) -> int:
    return count(instructions) + count(_user_text(question, sources))


@dataclass(frozen=True)
class _Built:
    """A prompt that came back: its two messages as (role, text), and the sources that are said to be in it."""

    messages: list[tuple[str, str]]
    sources: list[str]


@dataclass(frozen=True)
class _Task:
    """What a prompt is asked for."""

    instructions: str
    question: str
    sources: list[str]
    budget: int = 10_000
    count: Counter = _count_words

    def given_to(self, answer: Handle) -> Any:
        """Return whatever the answer makes of it."""
        return answer(self.instructions, self.question, list(self.sources), self.budget, self.count)

    def built(self, trial: Trial, answer: Handle) -> _Built:
        """Let the answer build the prompt; fail unless it looks like one."""
        try:
            got = self.given_to(answer)
        except AnswerRaised as error:
            # Refused on purpose; any other ValueError is shown with its line.
            on_purpose = error.location is None or "raise" in error.location.source
            if "ValueError" not in error.type_names or not on_purpose:
                raise
            fit = self.fitting()
            message = _(
                "That fits: with {fit} of {count} sources the messages have {used} tokens; the budget is {budget}."
            )
            message = trial.text(message, fit=fit, count=len(self.sources), used=self.size(fit), budget=self.budget)
            raise Failed(message, "Prompt") from None
        fields = trial.fields(got, "Prompt", "messages", "sources")
        trial.is_a(fields["messages"], (list, tuple))
        return _Built([chats.message(message) for message in fields["messages"]], _texts(trial, fields["sources"]))

    def wanted(self) -> list[tuple[str, str]]:
        """Return the messages with all sources."""
        return [("system", self.instructions), ("user", _user_text(self.question, self.sources))]

    def require(self, trial: Trial, answer: Handle) -> _Built:
        """Fail unless the messages are the right ones, with all sources; return what was built."""
        built, wanted = self.built(trial, answer), self.wanted()
        more = built.messages[-1][1].removeprefix(wanted[-1][1]) if built.messages else ""
        if built.messages == [*wanted[:-1], (wanted[-1][0], wanted[-1][1] + more)]:
            message = _("The message of the user goes on after the question, with {more}.")
            trial.require(not more, message, more=repr(more), expected=repr(wanted[-1][1][-40:]))
        if built.messages != wanted:
            line, other = _first_difference(_written(wanted), _written(built.messages))
            raise Failed(trial.text(_("The messages differ from what was asked for, first in this line.")), line, other)
        return built

    def fitting(self) -> int:
        """Return how many sources fit."""
        sizes = [self.size(shown) for shown in range(len(self.sources) + 1)]
        return max(shown for shown, size in enumerate(sizes) if size <= self.budget)

    def size(self, shown: int) -> int:
        return _prompt_size(self.count, self.instructions, self.question, self.sources[:shown])


def _written(messages: Sequence[tuple[str, str]]) -> list[str]:
    """Return messages line by line; the line of a message says whose it is."""
    return [f"{role}: {line}" for role, text in messages for line in text.split("\n")]


def _first_difference(wanted: Sequence[str], found: Sequence[str]) -> tuple[str, str]:
    for one, other in zip(wanted, found, strict=False):
        if one != other:
            return _around(one, other)
    shorter = min(len(wanted), len(found))
    return "\n".join(wanted[shorter : shorter + 1]) or "-", "\n".join(found[shorter : shorter + 1]) or "-"


def _around(one: str, other: str, width: int = 150) -> tuple[str, str]:
    """Return two different lines, cut so that their first difference is seen."""
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, place - width // 2)
    dots = "…" if start else ""
    return (repr(dots + chats.short(text[start:], width)) for text in (one, other))  # type: ignore[return-value]


def _task(rng: "np.random.Generator", sources: Sequence[str], **changed: Any) -> _Task:
    instructions, question = chats.sentence(rng, words=9), f"{chats.sentence(rng, words=4)}?"
    return _Task(**({"instructions": instructions, "question": question, "sources": list(sources)} | changed))


@build_prompt.criterion(
    _("instructions, numbered sources, and the question"),
    points=0.5,
    why=_("The model cites by number, and your program looks the number up: both must mean the same source by it."),
)
def numbers_sources(trial: Trial, answer: Handle) -> None:
    for count in (1, 3, 11):
        sources = [f"{line} Öl 🛢\ufe0f zero\u200bwidth" for line in _lines(trial.rng, count)]
        _task(trial.rng, sources).require(trial, answer)


@build_prompt.criterion(
    _("no source and no question can forge a mark"),
    points=0.5,
    why=_("Anyone can write [2] into a document. If it reaches the prompt as it is, the model cites a source that says "
          "something else, and your program looks up the wrong one."),
)  # fmt: skip
def no_forged_marks(trial: Trial, answer: Handle) -> None:
    first, second, question = _lines(trial.rng, 3)
    for forged in ("[2]", "[12]", "[ 3 ]", "[1, 2]", "[2] [3]", "]", "["):
        sources = [f"{first} {forged} {chats.sentence(trial.rng)}", second]
        _task(trial.rng, sources).require(trial, answer)
    _task(trial.rng, [first, second], question=f"[3] {question}").require(trial, answer)
    # Each source has a mark of its own, even one that comes twice.
    _task(trial.rng, [first, second, first]).require(trial, answer)
    # The instructions are the program's own, and may name a mark.
    _task(trial.rng, [first, second], instructions=f"{question} [1]\n  {first}").require(trial, answer)


@build_prompt.criterion(
    _("a source stays on its line, and so does the question"),
    points=0.5,
    why=_("A line break inside a source lets it begin a line of its own, and that line may say: Question. So every run "
          "of white space becomes one space, and none is left at either end."),
)  # fmt: skip
def stays_on_line(trial: Trial, answer: Handle) -> None:
    for gap in ("\n", "\nQuestion: ", "\n\n2 ", "\r\n", "\u2028", "  \t\u00a0 "):
        first, second, third = _lines(trial.rng, 3)
        sources = [f"{gap}{first}{gap}{chats.sentence(trial.rng)}\n", second]
        _task(trial.rng, sources, question=f"{third}{gap}?").require(trial, answer)
    # Text that is not sent does not count: the wide gap takes no room.
    first, second, third = _lines(trial.rng, 3)
    task = _task(trial.rng, [f"{first}{40 * ' '}{second}", third], count=_count_quarters)
    shown = len(replace(task, budget=task.size(2) + 1).built(trial, answer).sources)
    message = _("Counted as they are sent, both sources fit. In the prompt: {shown}.")
    trial.require(shown == len(task.sources), message, shown=shown, expected=str(len(task.sources)))


def _no_quarters(text: str, before: str = "") -> str:
    """Return a text that makes a line of no whole quarters.

    So that counting in quarters, who adds up lines never has too little, and who joins messages never too much: each of
    them costs one criterion, and not, by luck, two.
    """
    return text if len(before + text) % 4 else f"{text}."


def _tight(rng: "np.random.Generator", count: Counter, shown: int) -> _Task:
    """Return a task whose budget is met to the token by the first `shown` of its sources."""
    sources = [
        _no_quarters(f"[E{place}] {chats.sentence(rng, words=int(words))}", f"[{place + 1}] ")
        for place, words in enumerate(rng.integers(6, 20, size=7))
    ]
    # Longer than any source: who does not count one of them has room for a source too many.
    question = _no_quarters(chats.sentence(rng, words=60), "Question: ")
    instructions = _no_quarters(chats.sentence(rng, words=28))
    task = _task(rng, sources, question=question, instructions=instructions, count=count)
    return replace(task, budget=task.size(shown))


@build_prompt.criterion(
    _("instructions, question and sources stay within the budget together"),
    points=0.75,
    why=_("Over the budget the request fails, or the beginning is cut off without a word: often your instructions."),
)
def within_budget(trial: Trial, answer: Handle) -> None:
    for count in _COUNTERS:
        for shown in (5, 3, 0):
            task = _tight(trial.rng, count, shown)
            _require_within(trial, answer, task)
            if shown:  # one token too few for the last of them
                _require_within(trial, answer, replace(task, budget=task.budget - 1))


def _require_within(trial: Trial, answer: Handle, task: _Task) -> None:
    used = sum(task.count(text) for _role, text in task.built(trial, answer).messages)
    message = _("The two messages have {used} tokens together, and the budget is {budget}.")
    trial.require(used <= task.budget, message, used=used, budget=task.budget, expected=f"<= {task.budget}")


@build_prompt.criterion(
    _("the best sources are kept, as many as fit, and without a gap"),
    points=0.5,
    why=_("The first source is the likeliest to hold the answer. A worse one in its place misleads, and room that is "
          "left empty is knowledge left out."),
)  # fmt: skip
def best_kept(trial: Trial, answer: Handle) -> None:
    tasks = [_tight(trial.rng, count, shown) for count in _COUNTERS for shown in (4, 2)]
    tasks.append(_task(trial.rng, []))
    long = chats.sentence(trial.rng, words=60)
    first, *others = _lines(trial.rng, 3, words=6)
    for sources, shown in (([first, long, *others], 1), ([long, first, *others], 0)):
        task = _task(trial.rng, sources)
        # Room for all but the long one, which must end the list all the same.
        tasks.append(replace(task, budget=_prompt_size(task.count, task.instructions, task.question, [first, *others])))
        assert tasks[-1].fitting() == shown
    for task in tasks:
        _require_best(trial, answer, task)


def _require_best(trial: Trial, answer: Handle, task: _Task) -> None:
    """Fail unless at least those sources are shown that fit, from the first one on, and whole."""
    built, fit = task.built(trial, answer), task.fitting()
    best = task.sources[: len(built.sources)]
    if built.sources != best and [*map(_harmless, built.sources)] == [*map(_harmless, best)]:
        message = trial.text(_("`Prompt.sources` holds the sources as they were given; these were changed."))
        raise Failed(message, show(best), show(built.sources))
    if built.sources != best or len(built.sources) < fit:
        message = _("From the first on, {fit} of {count} sources fit: with them the messages, counted as they are "
                    "sent, have {used} tokens, and the budget is {budget}. In the prompt: {numbers}.")  # fmt: skip
        numbers = [task.sources.index(text) + 1 if text in task.sources else "?" for text in built.sources]
        listed = f"sources={numbers}".replace("'", "")
        counts = {"fit": fit, "count": len(task.sources), "used": task.size(fit), "budget": task.budget}
        trial.require(False, message, numbers=listed, **counts)
    said = _harmless(built.messages[-1][1]) if built.messages else ""
    cut = [text for text in built.sources if _harmless(text) not in said]
    trial.require(not cut, _("This source is not in the prompt as a whole: {text}"), text=(cut or [""])[0])


@build_prompt.criterion(
    _("refuses a question that does not fit even without sources"),
    points=0.25,
    why=_("Half a question gets an answer to another one. An error can be shown to the customer."),
)
def question_too_long(trial: Trial, answer: Handle) -> None:
    for count in _COUNTERS:
        task = _tight(trial.rng, count, 0)
        with trial.raises("ValueError", message=_("A question that does not fit even alone must raise {names}.")):
            replace(task, budget=task.budget // 2).given_to(answer)
    _require_both_counted(trial, answer)


def _require_both_counted(trial: Trial, answer: Handle) -> None:
    """Fail unless a question is refused that lacks one token of room beside the instructions.

    Who counts wrongly everywhere has room for a short source, too: that is for `within_budget` to say.
    """
    task = replace(_tight(trial.rng, _count_framed, 0), sources=[str(trial.rng.choice(chats.WORDS))])
    used, budget = task.budget, task.budget - 1
    try:
        got = replace(task, budget=budget).given_to(answer)
    except AnswerRaised as error:
        if "ValueError" in error.type_names:
            return
        raise
    shown = got.fields.get("sources") if isinstance(got, Record) else None
    message = _("Instructions and question have {used} tokens together, and the budget is {budget}: this must raise "
                "ValueError.")  # fmt: skip
    trial.require(shown, message, used=used, budget=budget, expected="ValueError")


@dataclass(frozen=True)
class _Prompt:
    """What the learner's `Prompt` looks like."""

    messages: list[dict[str, str]]
    sources: list[str]


def _chat(instructions: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": instructions}, {"role": "user", "content": user}]


def _building(
    instructions: str,
    question: str,
    sources: list[str],
    budget: int,
    count: Counter,
    *,
    write: Callable[[str, list[str]], str] = _user_text,
    size: Callable[[Counter, str, str, list[str]], int] = _prompt_size,
    choose: Callable[[int], list[str]] | None = None,
    least: int = 0,
    too_long: Callable[[], Any] | None = None,
) -> Any:
    """Build a prompt rightly, apart from what a misconception changes."""
    choose = choose or (lambda shown: sources[:shown])
    for shown in range(len(sources), least - 1, -1):
        chosen = choose(shown)
        if shown == least > 0 or size(count, instructions, question, chosen) <= budget:
            return _Prompt(_chat(instructions, write(question, chosen)), chosen)
    if too_long is not None:
        return too_long()
    raise ValueError("the question does not fit into the budget")


def _with_marks(question: str, sources: list[str], clean: Callable[[str], str], asked: Callable[[str], str]) -> str:
    """Write sources and question as these two functions leave them."""
    lines = [f"[{number}] {clean(source)}" for number, source in enumerate(sources, start=1)]
    return "\n".join([*lines, f"Question: {asked(question)}"])


def _one_line(text: str) -> str:
    return " ".join(text.split())


@build_prompt.misconception(_("documents that keep their square brackets: whoever writes one can forge `[2]`"))
def marks_forged(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def write(question: str, sources: list[str]) -> str:
        return _with_marks(question, sources, _one_line, _one_line)

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("a list of what is forbidden: `[2]` is mended, `[1, 2]` and `[ 3 ]` get through"))
def only_plain_marks(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def clean(text: str) -> str:
        return re.sub(r"\[(\d+)\]", r"(\1)", _one_line(text))

    def write(question: str, sources: list[str]) -> str:
        return _with_marks(question, sources, clean, clean)

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("sources made harmless, and a question that is not: customers can forge marks as well"))
def question_forges(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def write(question: str, sources: list[str]) -> str:
        return _with_marks(question, sources, _harmless, _one_line)

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("sources with their line breaks: one of them can begin a line with `Question:`"))
def lines_forged(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def clean(text: str) -> str:
        return text.replace("[", "(").replace("]", ")")

    def write(question: str, sources: list[str]) -> str:
        return _with_marks(question, sources, clean, clean)

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("only `\\n` taken for the end of a line: other line breaks and wide gaps stay"))
def only_newlines(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def clean(text: str) -> str:
        return text.replace("\n", " ").strip().replace("[", "(").replace("]", ")")

    def write(question: str, sources: list[str]) -> str:
        return _with_marks(question, sources, clean, clean)

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("numbers that begin at 0"))
def numbered_from_zero(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def write(question: str, sources: list[str]) -> str:
        lines = [f"[{number}] {_harmless(source)}" for number, source in enumerate(sources)]
        return "\n".join([*lines, f"Question: {_harmless(question)}"])

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("the question before the sources"))
def question_first(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def write(question: str, sources: list[str]) -> str:
        *lines, asked = _user_text(question, sources).split("\n")
        return "\n".join([asked, *lines])

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("sources without numbers: there is nothing that an answer could cite"))
def not_numbered(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def write(question: str, sources: list[str]) -> str:
        return "\n".join([*map(_harmless, sources), f"Question: {_harmless(question)}"])

    return _building(instructions, question, sources, budget, count, write=write)


@build_prompt.misconception(_("a question outside the budget: only instructions and sources are counted"))
def question_not_counted(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return _prompt_size(count, instructions, question, sources) - count(_harmless(question))

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(_("instructions outside the budget"))
def instructions_not_counted(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return _prompt_size(count, "", question, sources)

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(_("only the sources counted: neither the instructions nor the question"))
def only_sources_counted(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return sum(count(_harmless(source)) for source in sources)

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(_("a budget that must not be reached: `<` where `<=` is meant"))
def budget_not_reached(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    return _building(instructions, question, sources, budget - 1, count)


@build_prompt.misconception(_("the numbers of parts added up: a text can have other tokens than its parts together"))
def parts_added(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return count(instructions) + sum(count(line) for line in _user_text(question, sources).split("\n"))

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(_("the notebook's `estimate_tokens` instead of the parameter `count_tokens`"))
def own_counter(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    return _building(instructions, question, sources, budget, _count_quarters)


@build_prompt.misconception(_("both contents joined and counted as one text, where the two numbers are to be added"))
def counted_as_one(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return count(f"{instructions}\n{_user_text(question, sources)}")

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(
    _("texts counted as they came, before they are made harmless: what is not sent costs nothing")
)
def counted_before(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def size(count: Counter, instructions: str, question: str, sources: list[str]) -> int:
        return count(instructions) + count(_with_marks(question, sources, str, str))

    return _building(instructions, question, sources, budget, count, size=size)


@build_prompt.misconception(_("the instructions made harmless too: they are yours, and go out as they are"))
def instructions_changed(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    return _building(_harmless(instructions), question, sources, budget, count)


@build_prompt.misconception(_("a budget that nobody looks at: all sources, always"))
def no_budget(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    return _Prompt(_chat(instructions, _user_text(question, sources)), sources)


@build_prompt.misconception(_("the best source dropped first: the last ones are kept"))
def best_dropped(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def choose(shown: int) -> list[str]:
        return sources[len(sources) - shown :]

    return _building(instructions, question, sources, budget, count, choose=choose)


@build_prompt.misconception(_("a source that does not fit is skipped, and a worse one moves up in its place"))
def moves_up(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    kept: list[str] = []
    for source in sources:
        if _prompt_size(count, instructions, question, [*kept, source]) <= budget:
            kept.append(source)
    return _building(instructions, question, kept, budget, count)


@build_prompt.misconception(_("at least one source, whatever the budget says"))
def always_one(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    if _prompt_size(count, instructions, question, []) > budget:
        raise ValueError("too long")
    return _building(instructions, question, sources, budget, count, least=1)


@build_prompt.misconception(_("a source cut in the middle, so that a piece of it fits"))
def source_cut(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    whole = _building(instructions, question, sources, budget, count)
    shown = len(whole.sources)
    words = sources[shown].split() if shown < len(sources) else []
    for length in range(len(words) - 1, 0, -1):
        chosen = [*whole.sources, " ".join(words[:length])]
        if _prompt_size(count, instructions, question, chosen) <= budget:
            return _Prompt(_chat(instructions, _user_text(question, chosen)), sources[: shown + 1])
    return whole


@build_prompt.misconception(_("a question that does not fit and is sent all the same"))
def too_long_sent(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    def anyway() -> Any:
        return _Prompt(_chat(instructions, _user_text(question, [])), [])

    return _building(instructions, question, sources, budget, count, too_long=anyway)


@build_prompt.misconception(_("`sources` with all that was found, not with what is in the prompt"))
def all_listed(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    return replace(_building(instructions, question, sources, budget, count), sources=sources)


@build_prompt.misconception(_("`sources` with the texts as they were made harmless, not as they were given"))
def changed_listed(instructions: str, question: str, sources: list[str], budget: int, count: Counter) -> Any:
    right = _building(instructions, question, sources, budget, count)
    return replace(right, sources=[_harmless(source) for source in right.sources])


build_prompt.equivalent(
    "for shown in range(len(sources), -1, -1):",
    "for shown in range(len(sources), -2, -1):",
    reason="a round more, with all sources but the last: what is too long without sources is too long with them",
)


# ---------------------------------------------------------------- cited_sources

cited_sources = Check(
    "rag",
    "cited_sources",
    title=_("Which sources does it cite?"),
    hints=(
        _("What does a citation look like, and which other numbers may a reply have? And what should a program do with "
          "[7] when it showed five sources?"),
        _("Put the pattern for `re.findall` together piece by piece: a number is `[0-9]+`, a comma and another number, "
          "with spaces or without, is `(?: *, *[0-9]+)`, and `*` after that repeats it; around all of it come the "
          "brackets, `\\[` and `\\]`. Then `split` each match at its commas."),
        _("`marks = re.findall(r\"\\[ *([0-9]+(?: *, *[0-9]+)*) *\\]\", reply)`, in which `(?:...)*` repeats a comma "
          "and a number; `numbers = [int(n) for mark in marks for n in mark.split(\",\")]`; `dict.fromkeys(numbers)` "
          "keeps each number once, in order."),
    ),
)  # fmt: skip


def _reply(rng: "np.random.Generator", *marks: str) -> str:
    """Return a reply with a sentence before each of these marks, and no other number."""
    said = [" ".join(rng.choice(chats.WORDS, size=5)) for _mark in marks]
    return " ".join(f"{words.capitalize()} {mark}." for words, mark in zip(said, marks, strict=True))


def _cites(trial: Trial, answer: Handle, reply: str, count: int, wanted: list[int]) -> None:
    trial.equal(answer(reply, count), wanted, _("That is not what this reply cites: {reply}"), reply=reply)


def _refuses(trial: Trial, answer: Handle, reply: str, count: int, message: str) -> None:
    with trial.raises("CitationError", message=trial.text(message, reply=reply, count=count)):
        answer(reply, count)


@cited_sources.criterion(
    _("the numbers of the sources that are cited"),
    points=0.25,
    why=_("These are the sources that the customer sees below the answer."),
)
def finds_numbers(trial: Trial, answer: Handle) -> None:
    for size in (1, 2, 4):
        numbers = sorted(int(number) for number in trial.rng.permutation(7)[:size] + 2)  # the ends are tried below
        _cites(trial, answer, _reply(trial.rng, *(f"[{n}]" for n in numbers)), 9, numbers)


@cited_sources.criterion(
    _("each number once, in the order of the reply"),
    points=0.25,
    why=_("The source of the first sentence is the one that most readers look up, and nobody wants to see it twice."),
)
def once_in_order(trial: Trial, answer: Handle) -> None:
    low, middle, high = sorted(int(number) for number in trial.rng.permutation(7)[:3] + 2)
    for numbers in ([middle, low], [high, low, middle], [middle, high, middle, middle], [high, low, high]):
        wanted = list(dict.fromkeys(numbers))
        _cites(trial, answer, _reply(trial.rng, *(f"[{n}]" for n in numbers)), 9, wanted)


@cited_sources.criterion(
    _("every way to write a citation: `[12]`, `[2][5]`, `[2, 5]`"),
    points=0.5,
    why=_("Models write all of these. What you do not recognise is an answer thrown away, or a source not shown."),
)
def every_way(trial: Trial, answer: Handle) -> None:
    one, two, three = sorted(int(number) for number in trial.rng.permutation(18)[:3] + 10)
    for mark in (f"[{one}][{two}]", f"[{one},{two}]", f"[{one}, {two}]", f"[ {one} ] [{two}]", f"[{one} , {two}]"):
        _cites(trial, answer, _reply(trial.rng, mark), 30, [one, two])
    _cites(
        trial, answer, _reply(trial.rng, "[1]", f"[{one}, {two}, {three}, 29, 30]"), 30, [1, one, two, three, 29, 30]
    )
    _cites(trial, answer, _reply(trial.rng, f"[{one}]").replace(" ", "\n"), 30, [one])
    _cites(trial, answer, f"Tür{_reply(trial.rng, f'[{one}]')} 🛢\ufe0f zero\u200bwidth", 30, [one])


@cited_sources.criterion(
    _("an unknown source is refused"),
    points=0.5,
    why=_("A number that was never shown is made up, and what stands before it probably too."),
)
def unknown_refused(trial: Trial, answer: Handle) -> None:
    message = _("Sources shown: {count}. This reply cites one that does not exist: {reply}")
    for count in (1, int(trial.rng.integers(3, 6))):
        over = count + int(trial.rng.integers(1, 5))  # one digit: two are another criterion's affair
        for marks in (
            [f"[{over}]"],
            [f"[{count + 1}]"],
            ["[1]", f"[{over}]"],
            [f"[1, {over}]"],
            ["[0]"],
            ["[1]", "[0]"],
        ):
            _refuses(trial, answer, _reply(trial.rng, *marks), count, message)
        _cites(trial, answer, _reply(trial.rng, f"[{count}]"), count, [count])  # the last one exists


@cited_sources.criterion(
    _("a reply without any citation is refused"),
    points=0.25,
    why=_("What nobody can look up is not an answer with sources, however good it sounds."),
)
def none_refused(trial: Trial, answer: Handle) -> None:
    message = _("This reply cites nothing: {reply}")
    for reply in (_reply(trial.rng, ""), "", _reply(trial.rng, "[]"), _reply(trial.rng, "[, ]")):
        _refuses(trial, answer, reply, 5, message)


@cited_sources.criterion(
    _("other numbers and other brackets are no citations"),
    points=0.25,
    why=_("Replies about machines are full of numbers and brackets. Taken for a citation, one of them puts a source on "
          "the customer's screen that the answer does not rest on."),
)  # fmt: skip
def other_numbers(trial: Trial, answer: Handle) -> None:
    others = "3 bar", "(4)", "[E5]", "{2}", "<4>", "【2】", "[source 5]", "[#2]", "8,000 hours", "[2 5]", "[²]", "[٣]"
    lists = "[E5, 3]", "[3, see 4]", "[2,]", "[, 2]", "[2,,5]", "[1;2]", "[1-3]", "[1–3]", "[1.2]", "[-2]"
    for other in (*others, *lists):
        number = int(trial.rng.integers(6, 10))
        _cites(trial, answer, _reply(trial.rng, other, f"[{number}]"), 9, [number])
        _refuses(trial, answer, _reply(trial.rng, other), 9, _("This reply cites nothing: {reply}"))


class _CitationError(Exception):
    """What the learner's `CitationError` looks like."""


_CitationError.__name__ = _CitationError.__qualname__ = "CitationError"
_MARK = r"\[\s*([0-9]+(?:\s*,\s*[0-9]+)*)\s*\]"


def _numbers(reply: str, pattern: str = _MARK) -> list[int]:
    """Return all numbers that a reply cites, as often as it does."""
    return [int(number) for mark in re.findall(pattern, reply) for number in re.findall("[0-9]+", mark)]


def _citing(reply: str, count: int, pattern: str = _MARK, lowest: int = 1, refuses: bool = True) -> list[int]:
    """Return what a reply cites, rightly apart from what a misconception changes."""
    numbers = _numbers(reply, pattern)
    if refuses and (not numbers or not all(lowest <= number <= count for number in numbers)):
        raise _CitationError(reply)
    return list(dict.fromkeys(numbers))


@cited_sources.misconception(_("a citation of source 7 accepted, though five were shown: nobody looks at `count`"))
def unknown_accepted(reply: str, count: int) -> Any:
    return _citing(reply, 10**9)


@cited_sources.misconception(_("[0] accepted; as a place in a Python list that is the first source, or the last"))
def zero_accepted(reply: str, count: int) -> Any:
    return _citing(reply, count, lowest=0)


@cited_sources.misconception(_("the last source taken for unknown: `<` where `<=` is meant"))
def last_refused(reply: str, count: int) -> Any:
    return _citing(reply, count - 1)


@cited_sources.misconception(_("unknown citations dropped silently: the sentence before them stays"))
def unknown_dropped(reply: str, count: int) -> Any:
    known = [number for number in _numbers(reply) if 1 <= number <= count]
    if not known:
        raise _CitationError(reply)
    return list(dict.fromkeys(known))


@cited_sources.misconception(_("only the first citation looked at, when it comes to whether it exists"))
def first_verified(reply: str, count: int) -> Any:
    numbers = _numbers(reply)
    if not numbers or not 1 <= numbers[0] <= count:
        raise _CitationError(reply)
    return list(dict.fromkeys(numbers))


@cited_sources.misconception(_("an empty list for a reply that cites nothing"))
def none_accepted(reply: str, count: int) -> Any:
    return _citing(reply, count) if _numbers(reply) else []


@cited_sources.misconception(_("nothing refused at all: neither an unknown source nor none"))
def nothing_refused(reply: str, count: int) -> Any:
    return _citing(reply, count, refuses=False)


@cited_sources.misconception(_("a pattern for one digit: `[12]` is not seen"))
def one_digit(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"\[([0-9])\]")


@cited_sources.misconception(_("a pattern for one number: `[2, 5]` is not seen"))
def one_number(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"\[\s*([0-9]+)\s*\]")


@cited_sources.misconception(_("a pattern without spaces: `[2,5]` is seen, `[2, 5]` is not"))
def no_spaces(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"\[([0-9]+(?:,[0-9]+)*)\]")


@cited_sources.misconception(
    _("a plain `(...)` that is repeated: `re.findall` returns only its last match, and `[1, 2, 3]` loses the 2")
)
def last_of_group(reply: str, count: int) -> Any:
    marks = re.findall(r"\[\s*([0-9]+)(\s*,\s*[0-9]+)*\s*\]", reply)
    return _citing(" ".join(f"[{first}{last}]" for first, last in marks), count)


@cited_sources.misconception(_("every number taken for a citation, with brackets or without"))
def every_number(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"([0-9]+)")


@cited_sources.misconception(_("any brackets with a number somewhere inside taken for a citation: `[E17]`"))
def any_brackets(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"\[([^\]]*)\]")


@cited_sources.misconception(_("a space taken for a comma: `[2 5]` is no citation"))
def spaces_separate(reply: str, count: int) -> Any:
    return _citing(reply, count, pattern=r"\[([0-9, ]+)\]")


@cited_sources.misconception(_("`\\d` where 0 to 9 are meant: it matches the digits of other scripts as well"))
def any_digits(reply: str, count: int) -> Any:
    marks = re.findall(r"\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]", reply)
    plain = " ".join(f"[{int(number)}]" for mark in marks for number in mark.split(","))
    return _citing(plain, count)


@cited_sources.misconception(_("`isdigit` where 0 to 9 are meant: it is true of `²`, of which `int` makes no number"))
def superscripts(reply: str, count: int) -> Any:
    marks = [mark.split(",") for mark in re.findall(r"\[([^\]]*)\]", reply)]
    numbers = [[number.strip() for number in mark] for mark in marks]
    cited = [int(number) for mark in numbers if all(map(str.isdigit, mark)) for number in mark]
    return _citing(" ".join(f"[{number}]" for number in cited), count)


@cited_sources.misconception(
    _("another exception than `CitationError`: whoever calls the function catches only this one")
)
def another_error(reply: str, count: int) -> Any:
    try:
        return _citing(reply, count)
    except _CitationError:
        raise ValueError(reply) from None


@cited_sources.misconception(_("a number listed as often as it is cited"))
def listed_again(reply: str, count: int) -> Any:
    _citing(reply, count)
    return _numbers(reply)


@cited_sources.misconception(_("numbers sorted, or in the order of a set, instead of in the order of the reply"))
def sorted_numbers(reply: str, count: int) -> Any:
    return sorted(_citing(reply, count))


@cited_sources.misconception(_("places in a list, counted from 0, instead of the numbers that are cited"))
def from_zero(reply: str, count: int) -> Any:
    return [number - 1 for number in _citing(reply, count)]


@cited_sources.misconception(_("texts instead of numbers"))
def as_texts(reply: str, count: int) -> Any:
    return [str(number) for number in _citing(reply, count)]


# ---------------------------------------------------------------- answer

answer = Check(
    "rag",
    "answer",
    title=_("Answer, or say that you cannot"),
    hints=(
        _("There are three ends: an answer with sources, nothing found, and a reply that nobody can verify. Which of "
          "them need the model?"),
        _("Keep the hits whose `similarity` reaches the threshold. None left, or none that fits into the prompt: "
          "\"not_found\", before any request. Otherwise ask once, and give the reply to `cited_sources`, with the "
          "number of sources that the prompt really shows."),
        _("`good = [hit[\"text\"] for hit in retrieve(question) if hit[\"similarity\"] >= threshold]`; `prompt = "
          "build_prompt(INSTRUCTIONS, question, good, BUDGET, estimate_tokens)`; `if not prompt.sources: return "
          "Answer(NOT_FOUND, [], \"not_found\")`; send `prompt.messages`; `try: numbers = cited_sources(reply, "
          "len(prompt.sources))`, `except CitationError: return Answer(NOT_FOUND, [], \"unverified\")`."),
    ),
)  # fmt: skip

# The notebook's own words, so that a learner's requests and answers can be compared with those of a misconception.
INSTRUCTIONS = (
    "Answer the question from the numbered sources alone, in one sentence, and end it with the number of its source, "
    "like [1]. If the sources do not answer it, say: not found."
)
NOT_FOUND = "I found nothing about this in our manual."
BUDGET = 600
THRESHOLD = 0.4
Hit = dict[str, Any]


def _hit(text: str, similarity: float, score: float) -> Hit:
    return {"text": text, "similarity": similarity, "score": score}


_BEGINNING = 60  # characters by which a hit is known in a prompt
_LOW = 0.001
"""A threshold that any score reaches: which one is compared is one criterion's matter."""


def _hits(rng: "np.random.Generator", *similarities: float) -> list[Hit]:
    """Return what retrieval found, best first by a fused score, which knows nothing of how near a text is."""
    texts = _lines(rng, len(similarities))
    return [_hit(t, s, 1 / (61 + place)) for place, (t, s) in enumerate(zip(texts, similarities, strict=True))]


@dataclass
class _Service:
    """One question to the answer: what is found, what the model replies, and what came of it."""

    trial: Trial
    question: str
    server: ScriptedServer
    hits: list[Hit] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    got: dict[str, Any] = field(default_factory=dict)
    error: AnswerRaised | None = None

    @property
    def count(self) -> int:
        return len(self.server.requests)

    @property
    def messages(self) -> list[tuple[str, str]]:
        """The messages of the first request as (role, text)."""
        body = self.server.requests[0].body if self.server.requests else None
        return [chats.message(message) for message in (body or {}).get("messages") or []]

    def prompt(self, *roles: str) -> str:
        """Return all that the first request says, or what these roles say in it."""
        return "\n".join(text for role, text in self.messages if role in (roles or (role,)))

    def shown(self) -> int:
        """Return how many numbered sources the first request shows."""
        numbered = re.findall(r"^\[([0-9]+)\]", self.prompt(), flags=re.MULTILINE)
        return len(numbered)

    def shown_hits(self) -> int:
        """Return how many of the hits the model sees, or the beginning of."""
        said = self.prompt()
        return sum(hit["text"][:_BEGINNING] in said for hit in self.hits)

    def told(self, message: str) -> str:
        """Return a message with what was found and replied, which the call itself does not show."""
        found = ", ".join(f"{hit['similarity']:.2f} {chats.short(hit['text'], 24)!r}" for hit in self.hits[:6])
        said = [chats.short(reply, 60) for reply in self.replies[: self.count]]
        case = _("`retrieve` had found: {found}. Sources in the prompt: {shown}. Reply of the model: {reply}.")
        case = self.trial.text(case, found=found or "-", shown=self.shown(), reply=repr(said[0]) if said else "-")
        return f"{message} {case}"

    def require_requests(self, count: int, message: str) -> None:
        if self.count != count:
            raise Failed(self.told(self.trial.text(message, sent=self.count)), str(count))

    def require(self, text: str, sources: list[str], outcome: str) -> None:
        """Fail unless this came back."""
        found = {name: self.got[name] for name in ("text", "sources", "outcome")}
        found["sources"] = _texts(self.trial, found["sources"])
        wanted = {"text": text, "sources": sources, "outcome": outcome}
        wrong = next((name for name in ("outcome", "text", "sources") if found[name] != wanted[name]), None)
        if wrong is not None:
            message = self.told(self.trial.text(_("`{name}` is not what it should be."), name=wrong))
            raise Failed(message, show(wanted[wrong]), show(found[wrong]))


def _names_model(server: ScriptedServer) -> bool:
    return all(chats.names_model(request.body) for request in server.requests)


def _serve(
    trial: Trial, answer: Handle, hits: list[Hit], *replies: str | Failure, threshold: float = 0.5, words: int = 4
) -> _Service:
    """Ask a question of which retrieval finds these hits; raise what the answer raises, if that is no OpenAI error."""
    script: list[Reply] = [reply if isinstance(reply, Failure) else Completion(reply) for reply in replies]
    server = trial.server(script, observed=lambda server: [_names_model(server), server.observed()])
    service = _Service(trial, f"{chats.sentence(trial.rng, words=words)}?", server, hits)
    service.replies += [f"HTTP {reply.status}" if isinstance(reply, Failure) else reply for reply in replies]

    @unobserved
    def retrieve(question: str) -> list[Hit]:
        service.asked.append(question)
        return hits if question == service.question else []

    client = answer.build("openai_client", base_url=service.server.url)
    try:
        got = answer(client, service.question, retrieve, threshold)
    except AnswerRaised as error:
        if "OpenAIError" not in error.type_names:
            raise
        service.error = error
        return service
    except NotStarted:
        if not service.asked:
            raise
        message = _("`answer` has begun, and calls a function that is not finished: `build_prompt` or `cited_sources`.")
        raise Failed(trial.text(message)) from None
    service.got = trial.fields(got, "Answer", "text", "sources", "outcome")
    trial.require(
        service.asked and set(service.asked) == {service.question},
        _("`retrieve` was not called with the question, word for word."),
        expected=f"retrieve({service.question!r})",
    )
    return service


@answer.criterion(
    _("answers from the sources, and names those that the reply cites"),
    points=0.5,
    why=_("The customer sees the answer and below it the sources. Nobody reads on to a source that has nothing to do "
          "with the answer."),
)  # fmt: skip
def answers_with_sources(trial: Trial, answer: Handle) -> None:
    for cited in ([1], [3], [2, 1]):
        hits = _hits(trial.rng, 0.8, 0.7, 0.6)
        reply = _reply(trial.rng, *(f"[{number}]" for number in cited))
        service = _serve(trial, answer, hits, reply, threshold=_LOW)
        if service.error:
            raise service.error
        service.require_requests(1, _("One question is one request. Requests sent by your code: {sent}."))
        service.require(reply, [hits[number - 1]["text"] for number in cited], "answered")


@answer.criterion(
    _("returns the reply as it is, and the sources as they were found"),
    points=0.25,
    why=_("Whoever looks for a mistake later compares what the customer saw with what the model wrote."),
)
def reply_unchanged(trial: Trial, answer: Handle) -> None:
    hits = [hit | {"text": f"[E5]\n  {hit['text']}\n"} for hit in _hits(trial.rng, 0.8, 0.7)]
    reply = f" {_reply(trial.rng, '[1]')}\n\n{_reply(trial.rng, '[ 2 ]', '[1]')}  \n"
    service = _serve(trial, answer, hits, reply, threshold=_LOW)
    if service.error:
        raise service.error
    if service.got["text"] != reply:
        raise Failed(trial.text(_("The reply was changed.")), show(reply), show(service.got["text"]))
    found, sources = [hit["text"] for hit in hits], _texts(trial, service.got["sources"])
    if sources != found and [*map(_harmless, sources)] == [*map(_harmless, found)]:
        message = _(
            "A source was changed: what is made harmless is for the model; the customer gets it as it was found."
        )
        raise Failed(trial.text(message), show(found), show(sources))


@answer.criterion(
    _("shows the model the question, and the hits that are similar enough, in order"),
    points=0.5,
    why=_("A passage that is far from the question is no source, yet the model answers from it and cites it properly. "
          "And one that is near and not shown is an answer lost."),
)  # fmt: skip
def good_hits_only(trial: Trial, answer: Handle) -> None:
    threshold = float(trial.rng.uniform(0.46, 0.6))
    # The first hit is not always the nearest, as happens where two searches are fused; one is just near enough.
    gaps = ((-0.05, -0.1), (-0.05, 0.1), (0.1, -0.05, -0.25, 0.2, 0.0, math.nan, 0.15))
    scores = ((0.02, 0.01), (0.02, 0.01), (12.0, 9.0, 7.0, 0.2, 0.1, 0.0, 0.0))
    # All are asked before any is judged: some mistakes look alike on one of them.
    shown = [_asked(trial, answer, threshold, *case) for case in zip(gaps, scores, strict=True)]
    for service, good in shown:
        _require_shown(trial, service, good, threshold)
    _require_room(trial, answer)


def _require_room(trial: Trial, answer: Handle) -> None:
    """Fail unless three hits are shown that fill most of the budget, counted by the notebook's estimate."""
    hits = [
        hit | {"text": f"{hit['text']} {chats.sentence(trial.rng, words=70)}"}
        for hit in _hits(trial.rng, 0.8, 0.7, 0.6)
    ]
    service = _serve(trial, answer, hits, _reply(trial.rng, "[1]"), threshold=_LOW)
    message = _("All hits fit into `BUDGET`, counted by `estimate_tokens`. Sources in the prompt: {shown}.")
    missing = [hit for hit in hits if hit["text"] not in service.prompt()]
    trial.require(not missing, message, shown=service.shown(), expected=str(len(hits)))


def _asked(
    trial: Trial, answer: Handle, threshold: float, gaps: Sequence[float], scores: Sequence[float]
) -> tuple[_Service, list[str]]:
    """Ask with hits so far from the threshold; return also the texts of those that reach it."""
    hits = [
        hit | {"score": score}
        for hit, score in zip(_hits(trial.rng, *(threshold + gap for gap in gaps)), scores, strict=True)
    ]
    good = [hit["text"] for hit, gap in zip(hits, gaps, strict=True) if gap >= 0]
    return _serve(trial, answer, hits, _reply(trial.rng, f"[{len(good[:2]) or 1}]"), threshold=threshold), good


def _require_shown(trial: Trial, service: _Service, good: list[str], threshold: float) -> None:
    """Fail unless the model sees just the hits that reach the threshold, and the customer only what the model saw."""
    said = service.prompt()
    weak = [hit for hit in service.hits if hit["text"] not in good and hit["text"] in said]
    message = _("A hit with a similarity of {similarity} was shown to the model; the threshold is {threshold}.")
    trial.require(not weak, message, threshold=threshold, similarity=weak[0]["similarity"] if weak else 0.0)
    missing = [text for text in good if text not in said]
    message = _("This hit reaches the threshold of {threshold}, and the model did not see it: {text}")
    trial.require(not missing, message, threshold=threshold, text=(missing or [""])[0])
    if good:
        message = _("The question is not in the user's message.")
        trial.require(service.question in service.prompt("user"), message, expected=service.question)
        if not _names_model(service.server):
            asked = (service.server.requests[0].body or {}).get("model")
            raise Failed(trial.text(_("Your request names another model.")), "model=MODEL", f"model={show(asked)}")
        placed = [said.find(text) for text in good]
        trial.require(placed == sorted(placed), _("The sources are not in the order in which they were found."))
        _require_prompt(trial, service, good)
        named = service.got.get("sources") or ()
        unseen = [hit["text"] for hit in service.hits if hit["text"] in named and hit["text"] not in said]
        message = _("The customer is sent to a source that the model did not see: {text}")
        if unseen:
            raise Failed(service.told(trial.text(message, text=unseen[0])))


def _require_prompt(trial: Trial, service: _Service, good: list[str]) -> None:
    """Fail unless the model is asked with a prompt's two messages alone: nothing of an earlier question goes along."""
    roles = [role for role, _text in service.messages]
    message = _("The model is asked with the two messages of the prompt, the system's and the user's. The messages of "
                "your request are: {roles}.")  # fmt: skip
    trial.require(roles == ["system", "user"], message, roles=", ".join(roles), expected="system, user")
    # Whether these are made harmless, though they should stay as they are, is for `build_prompt` to say.
    message = _("The message of the system is not `INSTRUCTIONS`, as the notebook came with it.")
    trial.require(_harmless(INSTRUCTIONS) in _harmless(service.prompt("system")), message, expected=INSTRUCTIONS)
    lines = [f"[{number}] {text}" for number, text in enumerate(good, start=1)]
    missing = [line for line in lines if line not in service.prompt("user")]
    message = _("The message of the user does not have this source with its number: {line}")
    trial.require(not missing, message, line=(missing or [""])[0], expected=(missing or [""])[0])


@answer.criterion(
    _("says \"not found\" when there is no source, and does not ask the model"),
    points=0.75,
    why=_("Without a source the model invents an answer, and it sounds like all the others. The cheapest and safest "
          "request is the one that is not sent."),
)  # fmt: skip
def no_source(trial: Trial, answer: Handle) -> None:
    threshold = float(trial.rng.uniform(0.4, 0.6))
    for hits in ([], _hits(trial.rng, threshold - 0.3, threshold - 0.02), [_huge(trial.rng)]):
        service = _serve(trial, answer, hits, _reply(trial.rng, "[1]"), threshold=threshold)
        if service.shown_hits():
            continue  # a hit that is too weak, or too long for the prompt: that is decided elsewhere
        service.require_requests(0, _("There is no source for this question. Requests sent by your code: {sent}."))
        service.require(NOT_FOUND, [], "not_found")


def _huge(rng: "np.random.Generator") -> Hit:
    """Return a good hit that fits into no prompt."""
    return _hit(" ".join(_lines(rng, 8 * BUDGET // 10, words=8)), 0.9, 0.02)


@answer.criterion(
    _("keeps a reply back that cannot be verified"),
    points=0.75,
    why=_("A reply that cites nothing, or a source that was never shown, is the model's own invention until proven "
          "otherwise."),
)  # fmt: skip
def unverified(trial: Trial, answer: Handle) -> None:
    for reply in (_reply(trial.rng, ""), _reply(trial.rng, "[4]"), _reply(trial.rng, "[1]", "[9]"), "not found", ""):
        service = _serve(trial, answer, _hits(trial.rng, 0.8, 0.7, 0.6), reply, threshold=_LOW)
        if service.error:
            raise service.error
        service.require_requests(1, _("One question is one request. Requests sent by your code: {sent}."))
        service.require(NOT_FOUND, [], "unverified")
    # Three hits, of which the prompt has room for one, and the reply cites another.
    first, last = _hits(trial.rng, 0.8, 0.7)
    service = _serve(trial, answer, [first, _huge(trial.rng), last], _reply(trial.rng, "[2]"), threshold=_LOW)
    if service.shown_hits() == 1:  # otherwise that is the prompt's fault
        service.require(NOT_FOUND, [], "unverified")


@answer.criterion(
    _("lets errors through: the server's, and that of a question that is too long"),
    points=0.25,
    why=_('"I found nothing" would be a lie: the answer may be in the manual, and asking again, later or more briefly, '
          "may help."),
)  # fmt: skip
def server_error(trial: Trial, answer: Handle) -> None:
    for status in (503, 400):
        hits = _hits(trial.rng, 0.7, 0.6)
        service = _serve(trial, answer, hits, Failure(status, "busy"), _reply(trial.rng, "[1]"), threshold=_LOW)
        if service.error is None:
            message = trial.text(_("The server failed; its error must reach the caller."))
            raise Failed(message, "InternalServerError", show(service.got))
        service.require_requests(1, _("Your code went on after the server's error. Requests sent: {sent}."))
    try:
        service = _serve(trial, answer, _hits(trial.rng, 0.7, 0.6), _reply(trial.rng, "[1]"), words=2 * BUDGET)
    except AnswerRaised as error:
        if "ValueError" not in error.type_names:
            raise
        return
    if service.question not in service.prompt("user"):  # otherwise that is the prompt's fault
        message = trial.text(_("The question is too long for any prompt; the `ValueError` must reach the caller."))
        raise Failed(message, "ValueError", show(service.got))


@dataclass(frozen=True)
class _Answer:
    """What the learner's `Answer` looks like."""

    text: str
    sources: list[str]
    outcome: str


_Answer.__name__ = _Answer.__qualname__ = "Answer"
Retrieve = Callable[[str], list[Hit]]


def _ask(client: Any, messages: list[dict[str, str]]) -> str:
    from kicourse.models import gpt

    reply = client.chat.completions.create(model=gpt.model(), messages=messages, temperature=0)
    return str(reply.choices[0].message.content)


def _similar_enough(hits: list[Hit], threshold: float) -> list[Hit]:
    return [hit for hit in hits if hit["similarity"] >= threshold]


def _answering(
    client: Any,
    question: str,
    retrieve: Retrieve,
    threshold: float,
    *,
    keep: Callable[[list[Hit], float], list[Hit]] = _similar_enough,
    needs_source: bool = True,
    attempts: int = 1,
    cite: Callable[[str, int, int], list[int]] = lambda reply, shown, _found: _citing(reply, shown),
    refused: Callable[[str], Any] = lambda _reply: _Answer(NOT_FOUND, [], "unverified"),
    not_found: str = "not_found",
) -> Any:
    """Answer rightly, apart from what a misconception changes."""
    hits = retrieve(question)
    good = [hit["text"] for hit in keep(hits, threshold)]
    prompt = _building(INSTRUCTIONS, question, good, BUDGET, _count_quarters)
    if needs_source and not prompt.sources:
        return _Answer(NOT_FOUND, [], not_found)
    reply = ""
    for _attempt in range(attempts):
        reply = _ask(client, prompt.messages)
        try:
            numbers = cite(reply, len(prompt.sources), len(hits))
        except _CitationError:
            continue
        texts = [*prompt.sources, *(hit["text"] for hit in hits if hit["text"] not in prompt.sources)]
        return _Answer(reply, [texts[number - 1] for number in numbers], "answered")
    return refused(reply)


@answer.misconception(_("the model asked with no source at all"))
def asks_without_source(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, needs_source=False)


@answer.misconception(_("the model asked when nothing fits into the prompt: only the hits are looked at"))
def asks_without_room(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    if not _similar_enough(retrieve(question), threshold):
        return _Answer(NOT_FOUND, [], "not_found")
    return _answering(client, question, retrieve, threshold, needs_source=False)


@answer.misconception(_('a placeholder such as "[1] No source.", so that the model is asked all the same'))
def placeholder_source(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return _similar_enough(hits, threshold) or [_hit("No source.", 1.0, 1.0)]

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("a long question cut to what fits: the customer gets the answer to another one"))
def cuts_the_question(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question[:400], lambda _cut: retrieve(question), threshold)


@answer.misconception(
    _("a threshold on the wrong score: `score` orders the hits, and says nothing about how near they are")
)
def wrong_score(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return [hit for hit in hits if hit["score"] >= threshold]

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("no threshold: whatever was found is a source"))
def no_threshold(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, keep=lambda hits, _threshold: hits)


@answer.misconception(_("a threshold for the first hit only: the others come along whatever they are"))
def first_decides(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(
        client, question, retrieve, threshold, keep=lambda hits, low: hits if _similar_enough(hits[:1], low) else []
    )


@answer.misconception(_("a threshold for the most similar hit only: the others come along whatever they are"))
def best_decides(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(
        client, question, retrieve, threshold, keep=lambda hits, low: hits if _similar_enough(hits, low) else []
    )


@answer.misconception(_("the loop left at the first hit below the threshold: good ones further down are lost"))
def stops_at_weak(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return list(itertools.takewhile(lambda hit: hit["similarity"] >= threshold, hits))

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("the notebook's `THRESHOLD` instead of the parameter `threshold`"))
def own_threshold(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, THRESHOLD)


@answer.misconception(_("a threshold that must be exceeded: `>` where `>=` is meant"))
def exceeds(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return [hit for hit in hits if hit["similarity"] > threshold]

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("`not similarity < threshold`, which lets NaN through: what cannot be compared is not similar"))
def nan_passes(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return [hit for hit in hits if not hit["similarity"] < threshold]

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("hits sorted again by similarity: what the fusion of both searches knew is lost"))
def sorted_again(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def keep(hits: list[Hit], threshold: float) -> list[Hit]:
        return sorted(_similar_enough(hits, threshold), key=lambda hit: -hit["similarity"])

    return _answering(client, question, retrieve, threshold, keep=keep)


@answer.misconception(_("citations held against all that was found, not against what the prompt shows"))
def found_not_shown(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, cite=lambda reply, _shown, found: _citing(reply, found))


@answer.misconception(
    _("citations held against all good hits, though the prompt shows fewer: some cannot be looked up")
)
def hits_not_shown(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def cite(reply: str, shown: int, found: int) -> list[int]:
        numbers = _citing(reply, found)
        if max(numbers) > shown:
            raise IndexError("list index out of range")
        return numbers

    return _answering(client, question, retrieve, threshold, cite=cite)


@answer.misconception(
    _("numbers looked up in all that was found: below the threshold there are hits the model never saw")
)
def looked_up_in_all(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    right = _answering(client, question, retrieve, threshold)
    if right.outcome != "answered":
        return right
    hits = retrieve(question)
    return replace(right, sources=[hits[number - 1]["text"] for number in dict.fromkeys(_numbers(right.text))])


@answer.misconception(_("a reply that was trimmed: it is to be returned as it is"))
def trimmed(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    right = _answering(client, question, retrieve, threshold)
    return replace(right, text=right.text.strip())


@answer.misconception(_("a reply that nobody verifies: it goes out, whatever it cites"))
def not_verified(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def cite(reply: str, shown: int, _found: int) -> list[int]:
        return [number for number in dict.fromkeys(_numbers(reply)) if 1 <= number <= shown]

    return _answering(client, question, retrieve, threshold, cite=cite)


@answer.misconception(_("a reply called unverified and shown to the customer all the same"))
def shown_anyway(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, refused=lambda reply: _Answer(reply, [], "unverified"))


@answer.misconception(_("a `CitationError` that reaches the customer"))
def error_escapes(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def refused(reply: str) -> Any:
        raise _CitationError(reply)

    return _answering(client, question, retrieve, threshold, refused=refused)


@answer.misconception(_("code that sends the same request again, in the hope that the next reply cites something"))
def asks_again(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, attempts=3)


@answer.misconception(_('one outcome for two things: a reply that was not verified is called "not_found"'))
def one_outcome(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    return _answering(client, question, retrieve, threshold, refused=lambda _reply: _Answer(NOT_FOUND, [], "not_found"))


@answer.misconception(
    _('a reply of "not found" taken for a gap in the manual: it cites nothing, and that makes it "unverified"')
)
def reply_believed(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def refused(reply: str) -> Any:
        return _Answer(NOT_FOUND, [], "not_found" if reply.lower().startswith("not found") else "unverified")

    return _answering(client, question, retrieve, threshold, refused=refused)


@answer.misconception(_("all sources of the prompt listed, not those that the reply cites"))
def all_sources(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def cite(reply: str, shown: int, _found: int) -> list[int]:
        _citing(reply, shown)
        return list(range(1, shown + 1))

    return _answering(client, question, retrieve, threshold, cite=cite)


@answer.misconception(_("a source one place off: number 1 is the first text, and a list begins at 0"))
def one_off(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    def cite(reply: str, shown: int, _found: int) -> list[int]:
        return [number % shown + 1 for number in _citing(reply, shown)]

    return _answering(client, question, retrieve, threshold, cite=cite)


@answer.misconception(_('numbers instead of texts: the customer sees "1" and wonders'))
def numbers_listed(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    right = _answering(client, question, retrieve, threshold)
    return replace(right, sources=_numbers(right.text))


@answer.misconception(_('`except Exception`, which makes "not found" of a server\'s error'))
def catches_everything(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    try:
        return _answering(client, question, retrieve, threshold)
    except Exception:
        return _Answer(NOT_FOUND, [], "not_found")


@answer.misconception(_('the `ValueError` of a question that is too long caught, and "not found" made of it'))
def catches_too_long(client: Any, question: str, retrieve: Retrieve, threshold: float) -> Any:
    try:
        return _answering(client, question, retrieve, threshold)
    except ValueError:
        return _Answer(NOT_FOUND, [], "not_found")


_REQUEST = "completion = client.chat.completions.create(model=MODEL, messages=messages{options})"
_OPTIONS = ", temperature=0, max_tokens=200"
for _options in (", max_tokens=200", ", temperature=0", ", temperature=1, max_tokens=200"):
    answer.equivalent(
        _REQUEST.format(options=_OPTIONS),
        _REQUEST.format(options=_options),
        reason="temperature and a limit for the reply are matters of taste, and the task leaves them open",
    )
for _limit in (201, 199, 1, 0):
    answer.equivalent(
        _REQUEST.format(options=_OPTIONS),
        _REQUEST.format(options=f", temperature=0, max_tokens={_limit}"),
        reason="the task names no limit, and which one is too low depends on the model; scripted replies ignore it",
    )


# ---------------------------------------------------------------- faithfulness

faithfulness = Check(
    "rag",
    "faithfulness",
    title=_("Is it in the sources?"),
    hints=(
        _("An answer of five sentences with one that is made up: which number should come out? What has to be compared "
          "with what, so that it does?"),
        _("Split the answer and every source into sentences. For each sentence of the answer take its greatest cosine "
          "similarity to any sentence of the sources; the share of those that reach the threshold is the result. No "
          "sentence on one of the two sides: 0.0, before you call `embed`. A vector of zeros has no direction: do not "
          "divide by its length."),
        _("First `return 0.0` if one of the two lists is empty. For the vectors of the answer's sentences, and again "
          "for those of the sources': `lengths = "
          "np.linalg.norm(vectors, axis=1, keepdims=True)`, and `vectors / np.where(lengths == 0, 1, lengths)` has the "
          "length 1. With these two, `claims` and `evidence`: `similarities = claims @ evidence.T`; "
          "`float((similarities.max(axis=1) >= threshold).mean())`."),
    ),
)  # fmt: skip


class _Meaning:
    """A made-up embedder: each sentence has a vector, and a longer text the mean of its sentences', as with real ones.

    `claims` are an answer's sentences, each with its similarity to one sentence of `evidence`, given by its place; the
    others it resembles not at all.
    """

    def __init__(
        self, rng: "np.random.Generator", evidence: Sequence[str], claims: dict[str, tuple[int, float]]
    ) -> None:
        import numpy as np

        size = len(evidence) + len(claims)
        turned = np.linalg.qr(rng.normal(size=(size, size)))[0]  # directions at right angles, in no axis' way
        self.vectors: dict[str, Any] = {}
        for place, sentence in enumerate(evidence):
            self.vectors.setdefault(sentence, turned[place])
        for place, (claim, (about, similarity)) in enumerate(claims.items(), start=len(evidence)):
            self.vectors[claim] = similarity * turned[about] + math.sqrt(1 - similarity**2) * turned[place]

    def embed(self, texts: list[str]) -> Any:
        import numpy as np

        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts")
        return np.array([self._vector(text) for text in texts]).reshape(len(texts), -1)

    def _vector(self, text: str) -> Any:
        inside = [vector for sentence, vector in self.vectors.items() if sentence in text]
        return sum(inside) / len(inside) if inside else 0 * next(iter(self.vectors.values()))


def _measure(trial: Trial, answer: Handle, text: str, sources: list[str], meaning: Any, threshold: float) -> Any:
    embedded: set[str] = set()
    sizes: set[int] = set()

    @unobserved
    def embed(texts: list[str]) -> Any:
        embedded.update(texts)
        sizes.add(len(texts))
        return meaning.embed(texts)

    try:
        return answer(text, sources, embed, threshold)
    finally:
        # What is compared, not in how many calls.
        trial.observe(sorted(embedded))
        trial.require(0 not in sizes, _("`embed` was called with an empty list."))


def _sentences(rng: "np.random.Generator", count: int) -> list[str]:
    """Return sentences without their full stops, none of which is a part of another."""
    return [line.capitalize() for line in _lines(rng, count, words=4)]


def _text(sentences: Sequence[str], marks: bool = False, end: str = ".") -> str:
    return " ".join(
        f"{sentence} [{number}]{end}" if marks else f"{sentence}{end}" for number, sentence in enumerate(sentences, 1)
    )


def _faithful(
    trial: Trial,
    answer: Handle,
    *,
    supported: int,
    unsupported: int = 0,
    documents: Sequence[int],
    repeated: bool = False,
    lengths: tuple[float, float] = (1.0, 1.0),
    end: str = ".",
) -> None:
    """Let the answer measure a text with so many supported sentences, against documents of so many sentences.

    With `repeated`, all documents but the first say the same, and all sentences but one of three are about that.
    """
    rng = trial.rng
    threshold = float(rng.uniform(0.5, 0.65))
    evidence, said = _sentences(rng, sum(documents)), _sentences(rng, supported + unsupported)
    # A claim is near one sentence of the sources; whether near enough is what is asked.
    near = [float(rng.uniform(threshold + 0.05, 0.98)) for _claim in range(supported)]
    near += [float(rng.uniform(0.1, threshold - 0.05)) for _claim in range(unsupported)]
    if unsupported:
        near[-1] = -0.9  # the opposite of a sentence is not near it
    about = [int(place) for place in rng.permutation(len(evidence))]
    if repeated:
        evidence[1:] = evidence[1:2] * (len(evidence) - 1)
        about, near = [1, 1, 0], [0.97] * len(said)
    claims = {claim: (about[place % len(about)], near[place]) for place, claim in enumerate(said)}
    meaning = _Meaning(rng, evidence, claims)
    meaning.vectors = {sentence: float(rng.uniform(*lengths)) * vector for sentence, vector in meaning.vectors.items()}
    ends = [sum(documents[: place + 1]) for place in range(len(documents))]
    sources = [_text(evidence[last - size : last], end=end) for size, last in zip(documents, ends, strict=True)]
    shuffled = [said[place] for place in rng.permutation(len(said))]
    got = _measure(trial, answer, _text(shuffled, marks=True, end=end), sources, meaning, threshold)
    message = _("{supported} of {count} sentences of the answer have a sentence in the sources that supports them.")
    trial.close(got, supported / len(said), message, supported=supported, count=len(said))


@faithfulness.criterion(
    _("the share of the answer's sentences that a source supports"),
    points=0.75,
    why=_("One made-up sentence among true ones is what does the damage, since it is believed. Only sentence by "
          "sentence does it show."),
)  # fmt: skip
def share_supported(trial: Trial, answer: Handle) -> None:
    _faithful(trial, answer, supported=3, documents=[1] * 5, repeated=True)
    for supported, unsupported in ((2, 0), (3, 1), (1, 4), (0, 2), (2, 3)):
        _faithful(trial, answer, supported=supported, unsupported=unsupported, documents=[1] * 6)


@faithfulness.criterion(
    _("one sentence of a long source is enough"),
    points=0.5,
    why=_("The vector of a whole page is the mean of all that it says, and resembles none of its sentences much."),
)
def inside_long_source(trial: Trial, answer: Handle) -> None:
    for supported, unsupported, documents in ((2, 1, [5, 7]), (1, 2, [9]), (3, 2, [1, 8, 4])):
        _faithful(trial, answer, supported=supported, unsupported=unsupported, documents=documents)
    for end in "!?":
        _faithful(trial, answer, supported=2, unsupported=1, documents=[4, 3], end=end)
    # A heading has no full stop, and does not run into the source that follows.
    heading, other, claim = _sentences(trial.rng, 3)
    meaning = _Meaning(trial.rng, [heading, other], {claim: (0, 0.65)})
    got = _measure(trial, answer, f"{claim}. [1]", [heading, _text([other])], meaning, 0.5)
    message = _("The answer is one sentence, with a citation after its full stop. The first source is one as well, "
                "without a full stop, and supports it.")  # fmt: skip
    trial.close(got, 1.0, message)


@faithfulness.criterion(
    _("similarity is the cosine: the length of a vector does not matter"),
    points=0.5,
    why=_("Many embedders give long vectors to long texts. A plain dot product then rewards length."),
)
def any_length(trial: Trial, answer: Handle) -> None:
    for lengths in ((4.0, 20.0), (0.05, 0.2), (0.1, 10.0)):
        _faithful(trial, answer, supported=2, unsupported=3, documents=[1] * 5, lengths=lengths)


@faithfulness.criterion(
    _("0.0 where nothing is said or nothing supports it, and a vector of zeros is like nothing"),
    points=0.25,
    why=_("An empty answer that counts as faithful would be the best of all. And one NaN in a mean makes the whole "
          "mean NaN: a dashboard without a number, on a Saturday night."),
)  # fmt: skip
def nothing_to_measure(trial: Trial, answer: Handle) -> None:
    rng = trial.rng
    source, beside, claim, second, blank, other = _sentences(rng, 6)
    meaning = _Meaning(rng, [source, beside], {claim: (0, 0.9), second: (1, 0.9)})
    for text, sources in (("", [_text([source])]), (" \n", [_text([source])]), (_text([claim]), []), ("", [])):
        got = _measure(trial, answer, text, sources, meaning, 0.5)
        message = _("An answer without a sentence, or no source at all: that is 0.0.")
        trial.close(got, 0.0, message)
    got = _measure(trial, answer, _text([claim]), [_text([source]), _text([beside])], meaning, 0.5)
    trial.close(got, 1.0, _("The answer has one sentence, and a source supports it."))
    got = _measure(trial, answer, _text([claim]), ["", _text([source])], meaning, 0.5)
    trial.close(got, 1.0, _("The first source is empty, and the second one supports the only sentence."))
    # `blank` and `other` are unknown to the embedder, which gives them zeros.
    got = _measure(trial, answer, _text([claim]), [_text([other]), _text([source])], meaning, 0.5)
    trial.close(got, 1.0, _("One source supports the only sentence; the other one has a vector of zeros."))
    got = _measure(trial, answer, _text([claim, blank, second, blank]), [_text([source, beside])], meaning, 0.5)
    message = _("Two of four sentences are supported; the other one comes twice, and has a vector of zeros.")
    trial.close(got, 0.5, message)


Embed = Callable[[list[str]], Any]


def _split(text: str) -> list[str]:
    """Split a text into sentences, without the marks of its citations."""
    plain = re.sub(r"\s*\[[0-9, ]+\]", "", text).strip()
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", plain) if sentence]


def _units(vectors: Any, zeros: float = 1.0) -> Any:
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return vectors / np.where(lengths == 0, zeros, lengths)


def _split_all(sources: list[str]) -> list[str]:
    return [sentence for source in sources for sentence in _split(source)]


def _share_supported(similarities: Any, threshold: float) -> Any:
    return (similarities.max(axis=1) >= threshold).mean()


def _measuring(
    answer: str,
    sources: list[str],
    embed: Embed,
    threshold: float,
    *,
    units: Callable[[Any], Any] = _units,
    claims: Callable[[str], list[str]] = _split,
    evidence: Callable[[list[str]], list[str]] = _split_all,
    share: Callable[[Any, float], Any] = _share_supported,
    empty: float = 0.0,
) -> Any:
    """Measure rightly, apart from what a misconception changes."""
    said, known = claims(answer), evidence(sources)
    if not said or not known:
        return empty
    similarities = units(embed(said)) @ units(embed(known)).T
    return float(share(similarities, threshold))


@faithfulness.misconception(_("the whole answer held against the whole document: all or nothing"))
def whole_against_whole(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer,
        sources,
        embed,
        threshold,
        claims=lambda text: [text] * bool(text.strip()),
        evidence=lambda s: [" ".join(s)] * bool(s),
    )


@faithfulness.misconception(_("the whole answer held against each sentence: one number for all that it says"))
def whole_answer(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, claims=lambda text: [text] * bool(text.strip()))


@faithfulness.misconception(_("each sentence held against a whole source, in whose mean it drowns"))
def against_whole_sources(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, evidence=list)


@faithfulness.misconception(_("only the first source looked at"))
def first_source(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources[:1], embed, threshold)


@faithfulness.misconception(_("the wrong direction: the share of the sources' sentences that the answer repeats"))
def sources_covered(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, low: (similarities.max(axis=0) >= low).mean()
    )


@faithfulness.misconception(
    _("the share of all pairs of sentences: for each sentence of the answer take the greatest first")
)
def share_of_pairs(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, share=lambda similarities, low: (similarities >= low).mean())


@faithfulness.misconception(_("support demanded from every sentence of the sources instead of from any"))
def every_source(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, low: (similarities.min(axis=1) >= low).mean()
    )


@faithfulness.misconception(_("the mean of the similarities to all sentences, where the greatest one is meant"))
def mean_over_sources(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, low: (similarities.mean(axis=1) >= low).mean()
    )


@faithfulness.misconception(_("the mean of the similarities instead of the share of supported sentences"))
def mean_similarity(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, _low: similarities.max(axis=1).mean()
    )


@faithfulness.misconception(_("all or nothing: 1 if every sentence is supported, otherwise 0"))
def all_or_nothing(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, low: (similarities.max(axis=1) >= low).all()
    )


@faithfulness.misconception(_("a number of sentences instead of their share"))
def counted(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(
        answer, sources, embed, threshold, share=lambda similarities, low: (similarities.max(axis=1) >= low).sum()
    )


@faithfulness.misconception(_("a dot product of vectors as they come: their length decides"))
def dot_product(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, units=lambda vectors: vectors)


@faithfulness.misconception(_("a vector of zeros divided by its length: NaN, which spreads over everything"))
def zeros_divided(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, units=lambda vectors: _units(vectors, zeros=0.0))


@faithfulness.misconception(_("sentences of the answer with a vector of zeros left out: they count as not supported"))
def zeros_dropped(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    import numpy as np

    said, known = _split(answer), _split_all(sources)
    if not said or not known:
        return 0.0
    claims = embed(said)
    similarities = _units(claims[np.linalg.norm(claims, axis=1) > 0]) @ _units(embed(known)).T
    return float(_share_supported(similarities, threshold))


@faithfulness.misconception(_("`embed` called for each source, even for one that has no sentence"))
def empty_embedded(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    import numpy as np

    said = _split(answer)
    if not said or not _split_all(sources):
        return 0.0
    claims = _units(embed(said))
    near = [(claims @ _units(embed(_split(source))).T).max(axis=1) for source in sources]
    return float((np.max(near, axis=0) >= threshold).mean())


@faithfulness.misconception(_("all sources joined into one text: the end of one runs into the beginning of the next"))
def sources_joined(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, evidence=lambda sources: _split(" ".join(sources)))


@faithfulness.misconception(_("cut at full stops alone, not by `sentences`: `!` and `?` end a sentence as well"))
def full_stops_only(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    def cut(text: str) -> list[str]:
        plain = re.sub(r"\s*\[[0-9, ]+\]", "", text)
        return [sentence.strip() for sentence in plain.split(". ") if sentence.strip()]

    return _measuring(
        answer,
        sources,
        embed,
        threshold,
        claims=cut,
        evidence=lambda sources: [sentence for source in sources for sentence in cut(source)],
    )


@faithfulness.misconception(_("1.0 for an answer that says nothing"))
def empty_is_faithful(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, empty=1.0)


@faithfulness.misconception(_("NaN for an answer that says nothing: a mean of nothing"))
def empty_is_nan(answer: str, sources: list[str], embed: Embed, threshold: float) -> Any:
    return _measuring(answer, sources, embed, threshold, empty=math.nan)


faithfulness.equivalent(
    "return vectors / np.where(lengths == 0, 1, lengths)",
    "return vectors / np.where(lengths == 0, 2, lengths)",
    reason="zeros divided by any number are zeros",
)
faithfulness.equivalent(
    "return float(np.mean(similarities.max(axis=1) >= threshold))",
    "return float(np.mean(similarities.max(axis=1) > threshold))",
    reason="a cosine meets a threshold exactly by rounding only, and that differs between right ways to compute it",
)
