"""What a submission has shown, made harmless: text and pictures drawn anew, whatever it claims they are."""

import base64
import io
import re
from typing import Any

_MOST_OUTPUTS = 100  # of a cell
_MOST_OUTPUTS_IN_ALL = 1_000
_MOST_LINES = 20  # of a traceback
_LARGEST_PICTURE = 4_000_000  # pixels
_ROOM_FOR_PICTURES = 10_000_000  # characters of base64, of all cells together
_ROOM_FOR_ERRORS = 10_000  # characters beside those of a cell's own texts, and for the words that too much was printed
_FULL_CELLS = 20  # cells that may show as much as one may, before there is no room for more
# Commands to a terminal (ECMA-48): with parameters, or a string that a terminal keeps; and what is left of broken ones.
_COMMANDS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Return a text without what terminals, and renderers of their colours, take for commands."""
    return _CONTROL.sub("", _COMMANDS.sub("", text))


class Harmless:
    """Makes what one submission shows harmless, cell by cell; `characters` is the most that a cell may show.

    All cells together are bounded too: what a person looks at is small, and a class's pages are written by one process.
    """

    def __init__(self, characters: int) -> None:
        self._characters = characters
        self._left = _FULL_CELLS * characters
        self._outputs_left = _MOST_OUTPUTS_IN_ALL
        self._pictures_left = _ROOM_FOR_PICTURES

    def outputs(self, shown: Any) -> list[dict[str, Any]]:
        """Return what a cell has shown as nbformat's outputs."""
        self._room = min(self._characters + _ROOM_FOR_ERRORS, self._left)
        at_first = self._room
        found = shown[: min(_MOST_OUTPUTS, self._outputs_left)] if isinstance(shown, list) else []
        made = [one for output in found if isinstance(output, dict) and (one := self._output(output))]
        self._left -= at_first - self._room
        self._outputs_left -= len(made)
        return made

    def _text(self, value: Any) -> str:
        """Return what there is room for of a text; nothing of what is none."""
        kept = plain(value[: self._room]) if isinstance(value, str) else ""
        self._room -= len(kept)
        return kept

    def _output(self, output: dict[str, Any]) -> dict[str, Any] | None:
        kind = output.get("output_type")
        if not isinstance(kind, str):
            return None
        if kind == "stream":
            name = output.get("name")
            name = "stderr" if isinstance(name, str) and name == "stderr" else "stdout"
            return {"output_type": "stream", "name": name, "text": self._text(output.get("text"))}
        if kind == "error":
            texts = {name: self._text(output.get(name)) for name in ("ename", "evalue")}
            trace = output.get("traceback")
            lines = [self._text(line) for line in trace[:_MOST_LINES]] if isinstance(trace, list) else []
            return {"output_type": "error", **texts, "traceback": lines}
        bundle = output.get("data")
        if kind not in ("display_data", "execute_result") or not isinstance(bundle, dict):
            return None
        data = {"text/plain": self._text(bundle.get("text/plain", ""))}
        if picture := self._picture(bundle.get("image/png")):
            data["image/png"] = picture
        # Only the judge's own results are results: nbgrader reads points from those.
        return {"output_type": "display_data", "data": data, "metadata": {}}

    def _picture(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self._pictures_left:
            return ""
        picture = _drawn_anew(value)
        if len(picture) > self._pictures_left:
            return ""
        self._pictures_left -= len(picture)
        return picture


def _drawn_anew(value: str) -> str:
    """Return a PNG drawn anew from its pixels; the empty string for anything that is no modest picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(value)), formats=["PNG"]) as image:
            if image.width * image.height > _LARGEST_PICTURE:
                return ""
            fresh, buffer = image.convert("RGBA"), io.BytesIO()
        fresh.info.clear()
        fresh.save(buffer, "PNG")
    except Exception:  # whatever a forged picture makes the decoder stumble over
        return ""
    return base64.b64encode(buffer.getvalue()).decode()
