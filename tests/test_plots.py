import struct

import pytest

from kicourse import plots


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_and_lines_stand_out_from_the_paper() -> None:
    assert contrast(plots.INK, plots.PAPER) >= 7
    for color in plots.COLORS:
        assert contrast(color, plots.PAPER) >= 3.5


def test_an_image_is_sharp_on_high_resolution_screens() -> None:
    image = plots.png(plots.figure(width=5, height=2))
    assert struct.unpack(">II", image[16:24]) == (5 * 96 * 2, 2 * 96 * 2)


@pytest.mark.parametrize(("language", "half"), [("en", "0.5"), ("de", "0,5")])
def test_numbers_are_written_in_the_readers_language(monkeypatch: pytest.MonkeyPatch, language: str, half: str) -> None:
    monkeypatch.setenv("KICOURSE_LANG", language)
    figure = plots.figure(width=5, height=2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="T = 0.5")
    legend = axes.legend()
    axes.set_title("top_p=0.5 of version 0.5.1")
    for _twice in range(2):
        plots.png(figure)
    assert half in [label.get_text() for label in axes.get_yticklabels()]
    assert [label.get_text() for label in legend.get_texts()] == [f"T = {half}"]
    assert axes.get_title(loc="left") == "top_p=0.5 of version 0.5.1"


def test_show_carries_the_alternative_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as captured:
        plots.show(plots.figure(3, 2), alt='Cost < "budget"')
        live = plots.Live()
        live.show(plots.figure(3, 2), alt="soon")
        live.show(plots.figure(3, 2), alt="later")
    alone, first, second = captured.outputs
    assert 'alt="Cost &lt; &quot;budget&quot;"' in alone.data["text/html"]
    assert alone.data["text/plain"] == 'Cost < "budget"'
    assert 'alt="soon"' in first.data["text/html"]
    assert 'alt="later"' in second.data["text/html"]
    assert second.transient == first.transient
    assert second.update
