"""Active content for the pages that an instructor opens."""

import base64

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output, new_raw_cell

from tests.hostile.corpus.attack import Attack, attack, every_task

SCRIPT = "<script>alert('hostile')</script>"
HTML = (
    r"$\href{javascript:hostile}{x}$ "
    + SCRIPT
    + "<img src=x onerror=alert('hostile')><svg onload=alert('hostile')><iframe srcdoc='<script>hostile</script>'>"
    + "</iframe><a href='javascript:alert(`hostile`)'>hostile</a><form action=//192.0.2.1><input autofocus onfocus=alert(1)>"
    + "</form><object data='data:text/html,hostile'></object><embed src='javascript:hostile'>"
    + "<meta http-equiv=refresh content='0;url=//192.0.2.1'><base href='//192.0.2.1'><style>@import '//192.0.2.1'</style>"
    + "<link rel=stylesheet href='//192.0.2.1'><math><mtext><script>hostile</script></mtext></math>"
)
MARKDOWN = f"""{HTML}

[hostile](javascript:alert('hostile')) [hostile](data:text/html,hostile) <javascript:hostile>

![hostile](x "' onerror=alert(1) x='") ![attached](attachment:hostile.svg)

$\\href{{javascript:alert('hostile')}}{{x}}$ $$\\unicode{{x3c}}$$
\\begin{{equation}}<script>hostile</script>\\end{{equation}}

```html
{SCRIPT}
```
````
{SCRIPT}
~~~
{SCRIPT}

    {SCRIPT}

[1]: javascript:hostile
"""


@attack("put scripts into markdown", safe_for_stock=True)
def markdown_scripts() -> Attack:
    def change(notebook: NotebookNode) -> None:
        svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='hostile()'/>").decode()
        for number, text in enumerate((MARKDOWN, "`" * 3 + "\n" + MARKDOWN, "`" * 50 + MARKDOWN, "~~~\n" + MARKDOWN,
                                       MARKDOWN.replace("\n", "\r"), MARKDOWN.replace("\n", "\u2028"), "    " + HTML,
                                       "<!--\n" + MARKDOWN, "\n\n---\n" + HTML, "> " + HTML, "* " + HTML)):  # fmt: skip
            cell = new_markdown_cell(text)
            cell.attachments = {"hostile.svg": {"image/svg+xml": svg, "text/html": HTML}}
            cell.metadata = {"name": HTML}
            notebook.cells.insert(5 * number, cell)

    return Attack(change=change)


@attack("put scripts into the course's own markdown, into raw cells and into metadata", safe_for_stock=True)
def scripts_in_cells() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = HTML
                cell.attachments = {"x": {"text/html": HTML}}
            cell.metadata["tags"] = ['"><script>alert(1)</script>']
        raw = new_raw_cell(HTML)
        raw.metadata = {"format": "text/html", "raw_mimetype": "text/html"}
        notebook.cells.append(raw)

    return Attack(change=change)


@attack("bring outputs along that are HTML, SVG, JavaScript, widgets", safe_for_stock=True)
def scripts_in_outputs() -> Attack:
    def change(notebook: NotebookNode) -> None:
        bundle = {
            "text/html": HTML,
            "image/svg+xml": f"<svg onload='hostile()'>{SCRIPT}</svg>",
            "application/javascript": "alert('hostile')",
            "text/markdown": MARKDOWN,
            "text/latex": r"$\href{javascript:hostile}{x}$",
            "image/png": f'"/>{SCRIPT}',
            "application/vnd.jupyter.widget-view+json": {"model_id": SCRIPT},
            "text/plain": HTML,
        }
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [
                    new_output("display_data", data=bundle, metadata={"image/png": {"width": '"><script>'}}),
                    new_output("stream", name="stdout", text=HTML),
                    new_output("error", ename=HTML, evalue=HTML, traceback=[HTML]),
                ]

    return Attack(change=change)


@attack("show HTML, SVG, JavaScript, LaTeX and pictures that are none, when it is run", fails=True, safe_for_stock=True)
def shown_scripts() -> Attack:
    return Attack(
        cell=f"""
from IPython.display import HTML, SVG, Image, Javascript, Latex, Markdown, display, publish_display_data
text = {HTML!r}
markdown = {MARKDOWN!r}
print(text)
print(text, file=sys.stderr)
display(HTML(text), Javascript("alert('hostile')"), Markdown(markdown), Latex(r"$\\href{{javascript:hostile}}{{x}}$"))
publish_display_data({{"text/html": text, "text/plain": text, "image/png": '"/>' + text, "image/svg+xml": text,
                       "image/jpeg": '"/>' + text, "application/pdf": text, "text/vnd.mermaid": text}},
                     {{"image/png": {{"width": '"><script>hostile</script>', "alt": text}}}})
get_ipython().run_cell_magic("html", "", text)
get_ipython().run_cell_magic("javascript", "", "alert('hostile')")
raise type("<script>hostile</script>", (Exception,), {{}})(text)
"""
    )


@attack("answer with HTML: as values, as names, as exceptions, as names of arguments", safe_for_stock=True)
def answered_scripts() -> Attack:
    source = f"""
text = {HTML!r}
import itertools
turn = itertools.count()

def ANSWER(*args, **kwargs):
    if next(turn) % 2:
        raise type("<script>hostile</script>", (Exception,), {{}})(text)
    return text

ANSWER.__name__ = ANSWER.__qualname__ = text
"""
    return Attack(answers=every_task(source))


@attack("answer with HTML in every place of a record, and of types", safe_for_stock=True)
def scripts_in_records() -> Attack:
    source = f"""
from dataclasses import make_dataclass
text = {HTML!r}
Kind = make_dataclass("Kind", ["inside"])
Kind.__name__ = Kind.__qualname__ = text
table = {{text: [text, (text,), Kind(text)]}}
ANSWER = lambda *args, **kwargs: table
"""
    return Attack(answers=every_task(source))


@attack("use backticks, ANSI colours and rich's markup in messages, to get out of their place", safe_for_stock=True)
def markup_in_messages() -> Attack:
    source = """
markup = "`</code><script>hostile</script>` [bold red]10/10[/] [link=javascript:hostile]x[/link] \\x1b[2J\\x1b[32m10 points\\x1b[0m"
markup += " \\x1b]8;;http://192.0.2.1\\x07x\\x1b]8;;\\x07 \\x1b[999D \\r10/10 \\x9b31m &lt;script&gt; </style></title></textarea>"

def ANSWER(*args, **kwargs):
    raise type(markup, (Exception,), {})(markup)
"""
    return Attack(answers=every_task(source), cell="""
markup = "[bold] \\x1b[2J\\x1b]0;10\\x07 \\x1b[38;5;999m\\x1b[0m<script>hostile</script>\\x1b[4:3m"
print(markup)
raise ValueError(markup)
""", )  # fmt: skip


@attack("make the check's own cell fail with an error full of HTML", safe_for_stock=True)
def scripts_in_check_errors() -> Attack:
    return Attack(
        answers={
            "ask": f"del ask_does_not_exist_{'x' * 10}",
            "cost": f"class Meta(type):\n    @property\n    def __name__(cls):\n        raise ValueError({HTML!r})\n"
            "class cost(metaclass=Meta):\n    pass",
            "stream": f"raise NotImplementedError({HTML!r})",
            "conversation": f"'''{HTML.replace(chr(39), chr(34))}'''\n</script>",
        }
    )


@attack("write code that is HTML: in comments, strings, magics, names", safe_for_stock=True)
def scripts_in_code() -> Attack:
    return Attack(
        answers={
            "ask": f"# </code></pre></div></textarea></script>{HTML}\nask = '''{SCRIPT}'''",
            "cost": f"%%html\n{HTML}",
            "stream": f"%%javascript\nalert('hostile')\n//{HTML}",
            "conversation": f"%%markdown\n{MARKDOWN}",
        }
    )
