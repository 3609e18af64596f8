"""What a submission has shown, made harmless: text and pictures drawn anew, whatever it claims they are."""

import base64
import io
from typing import Any

_MOST_OUTPUTS = 100
_MOST_LINES = 20  # of a traceback
_LARGEST_PICTURE = 4_000_000  # pixels
_ROOM_FOR_ERRORS = 10_000  # characters beside those of a cell's own texts, and for the words that too much was printed


def harmless(outputs: Any, characters: int) -> list[dict[str, Any]]:
    """Return what a cell has shown as nbformat's outputs, with so many characters of text (and an error's) at most."""
    room = _Room(characters + _ROOM_FOR_ERRORS)
    found = outputs if isinstance(outputs, list) else []
    return [made for output in found[:_MOST_OUTPUTS] if isinstance(output, dict) and (made := _output(output, room))]


class _Room:
    """How many characters there is still room for."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def text(self, value: Any) -> str:
        """Return what fits of a text; nothing of what is none."""
        kept = value[: self.left] if isinstance(value, str) else ""
        self.left -= len(kept)
        return kept


def _output(output: dict[str, Any], room: _Room) -> dict[str, Any] | None:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": room.text(output.get("text"))}
    if kind == "error":
        texts = {name: room.text(output.get(name)) for name in ("ename", "evalue")}
        trace = output.get("traceback")
        lines = [room.text(line) for line in trace[:_MOST_LINES]] if isinstance(trace, list) else []
        return {"output_type": "error", **texts, "traceback": lines}
    bundle = output.get("data")
    if kind not in ("display_data", "execute_result") or not isinstance(bundle, dict):
        return None
    data = {"text/plain": room.text(bundle.get("text/plain", ""))}
    if picture := _picture(bundle.get("image/png")):
        data["image/png"] = picture
    # Only the judge's own results are results: nbgrader reads points from those.
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _picture(value: Any) -> str:
    """Return a PNG drawn anew from its pixels; the empty string for anything that is no modest picture."""
    if not isinstance(value, str):
        return ""
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
