"""What a criterion works with: seeded randomness, expectations that explain themselves, scripted servers."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kicourse.answers import AnswerRaised, Handle, NotStarted, Record, Session
from kicourse.checks.show import show
from kicourse.language import _, language, translate

if TYPE_CHECKING:
    import numpy as np

    from kicourse.checks.scripted_server import ScriptedServer

T = TypeVar("T")


class Failed(Exception):
    """An expectation that was not met, in the learner's language; `expected` is the value that was wanted.

    `tried` is the call that failed, where that is not the last one.
    """

    def __init__(self, message: str, expected: str = "", got: str = "", tried: str = "") -> None:
        super().__init__(message)
        self.message, self.expected, self.got, self.tried = message, expected, got, tried


class Trial:
    """One criterion's try of an answer.

    `rng` is a NumPy generator of its own, derived from the seed and the criterion's name, so that adding a criterion
    changes no other. Never hand it to an answer; `rng.spawn(1)[0]` makes one to give away.
    """

    def __init__(
        self,
        domain: str,
        name: str,
        seed: int,
        session: Session,
        shared: "dict[Any, Any]",
        size: int | None = None,
        patience: float | None = None,
    ) -> None:
        self.domain, self.name, self.seed, self.session, self.shared = domain, name, seed, session, shared
        self.patience = patience
        self.size = size
        self.reached = 0
        self.resources = ExitStack()
        self.observations: list[Any] = []

    @property
    def rng(self) -> "np.random.Generator":
        """The trial's generator."""
        if not hasattr(self, "_rng"):
            import numpy as np

            self._rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode())])
        return self._rng

    @property
    def folder(self) -> Path:
        """An empty folder that lives as long as the trial."""
        if not hasattr(self, "_folder"):
            self._folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory(prefix="kicourse-")))
        return self._folder

    def server(
        self, *args: Any, observed: Callable[["ScriptedServer"], Any] | None = None, **kwargs: Any
    ) -> "ScriptedServer":
        """Start a scripted OpenAI-compatible server that lives as long as the trial (see ScriptedServer).

        `observed` returns what the server saw of how the answer behaves, where all of it would be too much.
        """
        from kicourse.checks.scripted_server import ScriptedServer

        if self.patience is not None:
            kwargs["patience"] = self.patience
        server = self.resources.enter_context(ScriptedServer(*args, **kwargs))
        self.resources.callback(lambda: self.observe(observed(server) if observed else server.observed()))
        return server

    def observe(self, data: Any) -> None:
        """Count something that the answer caused (a request to a server, say) as part of how it behaved."""
        self.observations.append(data)

    @contextmanager
    def trying(self, shown: str) -> Iterator[None]:
        """Let a verdict show what the block tries as `shown`, where the call itself would tell a learner little."""
        start = len(self.session.transcript)
        try:
            yield
        finally:
            for exchange in self.session.transcript[start:]:
                exchange.shown = shown

    @contextmanager
    def comparing(self, part: Callable[[Any], Any]) -> Iterator[None]:
        """Let the diagnosis compare no more than `part(outcome)` of what comes back in the block."""
        before, self.session.part = self.session.part, part
        try:
            yield
        finally:
            self.session.part = before

    def text(self, message: str, **values: Any) -> str:
        """Return `message` in the learner's language with `values` filled in, each shortened."""
        template = translate(self.domain, message)
        if template == message:
            template = translate("kicourse", message)
        return template.format(**{name: _plain(value) for name, value in values.items()})

    # Expectations. Each states what must hold, so that NaN fails.

    def require(self, ok: Any, message: str, *, expected: Any = None, **values: Any) -> None:
        """Fail with `message` (translated, `values` filled in) unless `ok` is true."""
        if not bool(ok):
            wanted = "" if expected is None else expected if isinstance(expected, str) else show(expected)
            raise Failed(self.text(message, **values), wanted)

    def equal(self, got: Any, expected: Any, message: str = _("That is not what was expected."), **values: Any) -> None:
        """Fail unless `got` is `expected`, in type and value."""
        self.is_a(got, type(expected))
        if not bool(got == expected):
            raise Failed(self.text(message, **values), show(expected), show(got))

    def is_a(self, got: Any, kind: type | tuple[type, ...]) -> None:
        """Fail with both names unless `got` is exactly of this type (or one of these)."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(got) not in kinds:
            names = " / ".join(k.__name__ for k in kinds)
            message = self.text(_("You returned {found}, not {wanted}."), found=_type_name(got), wanted=names)
            raise Failed(message, names, show(got))

    def fields(self, got: Any, kind: str, *names: str) -> dict[str, Any]:
        """Return the fields of the object that came back; fail unless it has these, as a `kind` does."""
        if not isinstance(got, Record) or not set(names) <= set(got.fields):
            message = self.text(_("You returned {found}, not {wanted}."), found=_type_name(got), wanted=kind)
            raise Failed(message, kind, show(got))
        return got.fields

    def array(self, got: Any, shape: tuple[int, ...] | None = None, kind: str = "array") -> None:
        """Fail unless `got` is an array ("array") or a tensor ("tensor") of this shape (None leaves the shape open)."""
        wanted = {"array": ("numpy", "ndarray"), "tensor": ("torch", "Tensor")}[kind]
        if (type(got).__module__.partition(".")[0], type(got).__name__) != wanted:
            name = ".".join(wanted)
            message = self.text(_("You returned {found}, not {wanted}."), found=_type_name(got), wanted=name)
            raise Failed(message, name, show(got))
        if shape is not None and tuple(got.shape) != tuple(shape):
            message = self.text(
                _("The result has the shape {found}, not {wanted}."),
                found=tuple(got.shape),
                wanted=tuple(shape),
            )
            raise Failed(message, str(tuple(shape)), show(got))

    def close(
        self,
        got: Any,
        expected: Any,
        message: str = _("The numbers differ."),
        *,
        rtol: float = 1e-4,
        atol: float = 1e-6,
        **values: Any,
    ) -> None:
        """Fail unless two numbers, arrays or tensors agree within tolerances; show where they differ most."""
        import numpy as np

        one, other = (_as_array(value) for value in (got, expected))
        if one is None or other is None:
            message = self.text(_("You returned {found}, not a number."), found=_type_name(got))
            raise Failed(message, show(expected), show(got))
        if one.shape != other.shape:
            message = self.text(
                _("The result has the shape {found}, not {wanted}."), found=one.shape, wanted=other.shape
            )
            raise Failed(message, show(expected), show(got))
        with np.errstate(invalid="ignore"):
            near = (one == other) | (np.abs(one - other) <= atol + rtol * np.abs(other))
        if near.all():
            return
        explained = self.text(message, **values)
        if one.ndim:
            worst = tuple(int(i) for i in np.argwhere(~near)[0])
            explained += " " + self.text(
                _("First difference at {place}: {found} instead of {wanted}."),
                place=list(worst),
                **_telling_apart(float(one[worst]), float(other[worst])),
            )
        raise Failed(explained, show(expected), show(got))

    @contextmanager
    def raises(self, *type_names: str, message: str = _("This must raise {names}.")) -> Iterator[None]:
        """Fail unless the block's call of the answer raises an exception of one of these types (or a subclass)."""
        try:
            yield
        except NotStarted:
            raise
        except AnswerRaised as error:
            if set(type_names) & set(error.type_names):
                return
            raise
        raise Failed(self.text(message, names=" / ".join(type_names)), " / ".join(type_names))

    def cases(self, draw: "Callable[[np.random.Generator, int], T]", count: int = 20) -> Iterator[T]:
        """Yield `count` cases, drawn by `draw(rng, size)` with sizes growing from 1.

        The smallest come first; when one fails, smaller ones are looked for, so that a learner sees a small one.
        """
        for number, rng in enumerate(self.rng.spawn(count), start=1):
            self.reached = self.size or number
            yield draw(rng, self.reached)

    def once(self, function: "Callable[[Trial, Handle], T]", answer: Handle) -> T:
        """Return `function(trial, answer)`, computed once for all criteria of a run (training a model, say).

        It gets a trial of its own, so that it does not matter which criterion asks first; a failure is raised again
        for each criterion that asks.
        """
        if function not in self.shared:
            self.shared[function] = _remember(function, self, answer)
        value, error, exchanges, observations = self.shared[function]
        known = {id(exchange) for exchange in self.session.transcript}
        self.session.transcript.extend(exchange for exchange in exchanges if id(exchange) not in known)
        self.observations.extend(observations)
        if error is not None:
            raise error
        result: T = value
        return result


def _remember(function: Callable[..., Any], trial: Trial, answer: Handle) -> tuple[Any, Exception | None, Any, Any]:
    start = len(trial.session.transcript)
    own = Trial(trial.domain, function.__name__, trial.seed, trial.session, trial.shared, patience=trial.patience)
    value, error = None, None
    try:
        with own.resources:
            value = function(own, answer)
    except Exception as raised:
        error = raised
    return value, error, trial.session.transcript[start:], own.observations


def _plain(value: Any) -> Any:
    """Make a value fit for str.format: text and numbers as they are, the rest shortened."""
    if isinstance(value, str):
        return value if len(value) <= 300 else value[:299] + "…"
    if isinstance(value, float):
        return _InWords(value)
    return value if isinstance(value, int) else show(value)


class _InWords(float):
    """A number in a sentence, written as the reader's language does (0.25 or 0,25), with four digits unless told."""

    def __format__(self, spec: str) -> str:
        from babel.numbers import get_decimal_symbol

        number = float(self)  # `self` would be written with the language's comma here already
        text = format(number, spec) if spec else f"{float(f'{number:.4g}'):.10g}"
        return text.replace(".", get_decimal_symbol(language()))


def _telling_apart(found: float, wanted: float) -> dict[str, str]:
    """Write two different numbers with as few digits as show the difference."""
    texts = [(f"{_InWords(found):.{digits}g}", f"{_InWords(wanted):.{digits}g}") for digits in (4, 8, 17)]
    shown = next(pair for pair in texts if pair[0] != pair[1] or pair is texts[-1])
    return {"found": shown[0], "wanted": shown[1]}


def _type_name(value: Any) -> str:
    if isinstance(value, Handle):
        return repr(value)
    name = getattr(value, "type_name", None) or type(value).__name__
    return "None" if value is None else str(name)


def _as_array(value: Any) -> Any:
    """Return numbers as a float array; None for anything else (booleans and text are no numbers here)."""
    import numpy as np

    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().double().numpy()
    if isinstance(value, bool):
        return None
    try:
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype.kind in "iuf" or _is_decimal(value) else None
    except (TypeError, ValueError):
        return None


def _is_decimal(value: Any) -> bool:
    return type(value).__name__ == "Decimal"
