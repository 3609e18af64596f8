"""Values as short text: what a verdict says was tried and what came back. Always bounded, whatever the value."""

import reprlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from kicourse.answers import AnswerError, AnswerRaised, Handle, Record

_LONGEST = 400


class _Short(reprlib.Repr):
    """A repr that is bounded in length and depth and knows arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 12
        self.maxstring = self.maxother = 160

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, float) and type(x) is float:
            return f"{x:.6g}"
        if isinstance(x, bytes):
            return super().repr1(x[: self.maxother], level)
        kind = type(x).__module__.partition(".")[0]
        if kind in ("numpy", "torch", "pandas") and hasattr(x, "shape"):
            return _array(x, kind)
        if isinstance(x, Handle):
            return repr(x)
        if isinstance(x, Record):
            fields = islice(x.fields.items(), self.maxdict)
            shown = [f"{str(name)[:100]}={self.repr1(value, level - 1)}" for name, value in fields]
            inside = ", ".join(shown + ["..."] * (len(x.fields) > len(shown)))
            return f"{x.type_name}({inside})" if level > 0 else f"{x.type_name}(...)"
        if callable(x):
            return f"<{getattr(x, '__name__', type(x).__name__)}>"
        return super().repr1(x, level)


def show(value: Any) -> str:
    """Return a short text of any value, an AnswerError included."""
    if isinstance(value, AnswerRaised):
        text = f"{value.type_names[0]}: {value.text}" if value.text else value.type_names[0]
    elif isinstance(value, AnswerError):
        text = str(value)
    else:
        text = _Short().repr(value)
    text = visible(text[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def visible(text: str) -> str:
    """Return a text in which what cannot be seen is spelled out, like the character that turns a line around."""
    return "".join(one if one.isprintable() or one in "\n\t" else repr(one)[1:-1] for one in text)


def show_call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a call as one would write it, with its arguments shortened."""
    shown = [show(value) for value in args] + [f"{key}={show(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


def _array(value: Any, kind: str) -> str:
    import numpy as np

    if kind == "pandas":
        return f"{type(value).__name__} {_shape(value.shape)}"
    if kind == "torch" and value.is_floating_point():
        value = value.float()  # NumPy knows no bfloat16
    name, data = ("tensor", value.numpy()) if kind == "torch" else ("array", np.asarray(value))
    if data.size > 24:
        return f"{name} {_shape(data.shape)}"
    if data.dtype.kind in "US":
        data = data.astype(f"{data.dtype.kind}{_LONGEST}")
    if data.ndim == 0:
        return f"{data.item():.6g}" if data.dtype.kind == "f" else repr(data.item())
    text = np.array2string(data, precision=4, separator=", ", suppress_small=True, max_line_width=100)
    return f"{name}({text})"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
