"""Figures in one quiet house style, shown with a text for those who cannot see them.

A figure is drawn on a pale card of its own, so that it reads the same on a light and on a dark page.

    figure = plots.figure(height=3)
    axes = figure.subplots()
    axes.plot(steps, losses, color=plots.BLUE)
    plots.show(figure, alt=text("The loss falls quickly, then slowly."))
"""

import html
import re
from base64 import b64encode
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from kicourse.language import SOURCE, language

if TYPE_CHECKING:
    from IPython.display import DisplayHandle
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

PAPER = "#fbfaf7"
INK = "#2b2f36"
GREY = "#8a8f98"
# Told apart by colour-blind readers too, and dark enough on PAPER (3:1 and more) for lines and bars.
BLUE = "#2c6fb2"
ORANGE = "#c8641b"
GREEN = "#2e8b6b"
PURPLE = "#7d55a5"
RED = "#b8324a"
YELLOW = "#a07a06"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, YELLOW)

CSS_PIXELS_PER_INCH = 96
SHARPNESS = 2  # image pixels for a pixel of the page: sharp on high-resolution screens

_GRID = "#dfddd6"
_NUMBER = re.compile(r"(?<![\w.=])(\d+)\.(\d+)(?!\.?\w)")  # in prose: neither in `top_p=0.3` nor in 1.2.3


def figure(width: float = 7.5, height: float = 3.6) -> "Figure":
    """Return an empty figure of `width` by `height` inches in the house style.

    It is a plain matplotlib figure that pyplot does not know: nothing shows it twice, and nothing has to
    close it.
    """
    from matplotlib.figure import Figure

    _use_house_style()
    return Figure(figsize=(width, height), layout="constrained")


def show(figure: "Figure", alt: str) -> None:
    """Show `figure` below the cell; `alt` says in words what there is to see."""
    from IPython.display import display

    display(_bundle(figure, alt), raw=True)


class Live:
    """A place below a cell where each figure replaces the one before, as a live curve needs it."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None

    def show(self, figure: "Figure", alt: str) -> None:
        """Show `figure` in this place, the first time below the cell that runs."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(_bundle(figure, alt), raw=True, display_id=True)
        else:
            self._handle.update(_bundle(figure, alt), raw=True)


def png(figure: "Figure") -> bytes:
    """Return the figure as the PNG image that `show` shows, its numbers as the reader's language writes them."""
    _use_decimal_symbol(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=CSS_PIXELS_PER_INCH * SHARPNESS)
    return buffer.getvalue()


def _bundle(figure: "Figure", alt: str) -> dict[str, str]:
    return {"text/html": _html(figure, alt), "text/plain": alt}


def _html(figure: "Figure", alt: str) -> str:
    # JupyterLab drops the alternative text of an image/png output, so the image travels as HTML.
    source = b64encode(png(figure)).decode("ascii")
    width = round(figure.get_figwidth() * CSS_PIXELS_PER_INCH)
    style = "max-width: 100%; height: auto; border-radius: 8px"
    return f'<img src="data:image/png;base64,{source}" width="{width}" alt="{html.escape(alt)}" style="{style}">'


def _use_decimal_symbol(figure: "Figure") -> None:
    """Write numbers on the axes and in texts with the decimal symbol of the reader's language: 0,5 in German."""
    code = language()
    if code == SOURCE:
        return
    from babel.numbers import get_decimal_symbol
    from matplotlib.text import Text

    symbol = get_decimal_symbol(code)

    def with_symbol(words: str) -> str:
        return _NUMBER.sub(rf"\1{symbol}\2", words)

    def format_ticks(formatter: "Formatter", values: Any) -> list[str]:
        return [with_symbol(label) for label in type(formatter).format_ticks(formatter, values)]

    for words in figure.findobj(Text):
        words.set_text(with_symbol(words.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            # On this one formatter, which keeps its settings; its class has the original, so twice does no harm.
            formatter.format_ticks = partial(format_ticks, formatter)  # type: ignore[method-assign]


def _use_house_style() -> None:
    import matplotlib
    from cycler import cycler

    # For good and not within a context: matplotlib reads most of it later, when lines and labels are drawn.
    matplotlib.rcParams.update(
        {
            "figure.facecolor": PAPER,
            "figure.constrained_layout.w_pad": 0.12,
            "figure.constrained_layout.h_pad": 0.1,
            "savefig.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "axes.prop_cycle": cycler(color=COLORS),
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlepad": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": _GRID,
            "grid.linewidth": 0.8,
            "font.family": "DejaVu Sans",  # comes with matplotlib: figures look the same on every machine
            "font.size": 10,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "lines.solid_capstyle": "round",
            "image.cmap": "cividis",
        }
    )
