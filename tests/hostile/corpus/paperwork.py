"""Work for whoever writes marks and pages, or serves others: what is shown, sent and named may be small and cost much."""

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tests.hostile.corpus.attack import Attack, Target, attack


@attack("print a colour that the pages' renderer fails at", fails=True)
def broken_colours() -> Attack:
    return Attack(cell='os.write(1, b"\\x1b[38m\\x1b[48m")\nprint("\\x1b[38m")\nraise ValueError("\\x1b[38;2m")')


@attack("write code that takes hours to be coloured")
def slow_colours() -> Attack:
    source = "x = 1" + " \n" * 450_000 + "x = 2"

    def change(notebook: NotebookNode) -> None:
        notebook.cells += [new_code_cell(f"{source}{number}") for number in range(4)]
        notebook.cells += [new_code_cell("x = 1" + " \n" * 4_900 + f"x = {number}") for number in range(60)]

    return Attack(change=change)


@attack("show pictures and text in hundreds of cells, each within what a cell may show")
def pictures_everywhere() -> Attack:
    picture = "import io, random\nfrom PIL import Image\nfrom IPython.display import display\n"
    picture += "noise = Image.frombytes('RGB', (1000, 1000), random.Random(1).randbytes(3_000_000))\n"

    def change(notebook: NotebookNode) -> None:
        notebook.cells.append(new_code_cell(picture))
        notebook.cells += [new_code_cell(f"display(noise) # {number}") for number in range(20)]
        notebook.cells += [new_code_cell(f"print('<' * 49_000) # {number}") for number in range(300)]

    return Attack(change=change)


@attack("answer each call with a refusal, and a list of changed arguments, of millions of letters")
def long_refusals() -> Attack:
    return Attack(
        cell="""
from kicourse.answers import host
host._Call.do_call = lambda *_, **__: {"refused": "<b>" + "y" * 20_000_000}
""",
        answers={
            "ask": "ask = lambda *args, **kwargs: True",
            "cost": 'host._Call.do_call = lambda *_, **__: {"value": 1, "changed": ["`<b>" + "y" * 20_000_000]}\n'
            "cost = lambda *args, **kwargs: True",
        },
    )


@attack("say something that no file can hold: half a surrogate pair")
def half_surrogates() -> Attack:
    return Attack(
        cell='print("\\ud800")',
        answers={
            "ask": """
def ask(client, question, instructions=""):
    import httpx
    body = '{"model": "\\\\ud800", "messages": [{"role": "user", "content": "\\\\ud800 <script>hostile</script>"}]}'
    return httpx.post(f"{client.base_url}chat/completions", content=body, timeout=3).text
""",
            "cost": 'def cost(usage, prices):\n    raise ValueError("\\ud800")',
        },
    )


@attack("hand in a time stamp of millions of digits")
def endless_timestamp() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
        (path.parent / "timestamp.txt").write_text("1" * 5_000_000)

    return Attack(place=place)


@attack("bring the GPT down, or keep it busy for ever, with grammars of its own")
def gpt_brought_down() -> Attack:
    return Attack(
        cell="""
import urllib.request
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
url = os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/completion"
for grammar in ('("a"?)' * 3_000, "(" * 50_000 + '"a"' + ")" * 50_000):
    content = json.dumps({"prompt": "x", "n_predict": 3, "grammar": "root ::= " + grammar}).encode()
    try:
        urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=2)
    except OSError as error:
        print("the server:", error)
"""
    )
