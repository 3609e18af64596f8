"""Files that are no notebooks, and things that are no files."""

import json
import os
import socket
from pathlib import Path

from nbformat import NotebookNode

from tests.hostile.corpus.attack import Attack, Target, attack


@attack("hand in an empty file", safe_for_stock=True)
def empty_file() -> Attack:
    return Attack(content=b"")


@attack("hand in something that is not JSON", safe_for_stock=True)
def no_json() -> Attack:
    return Attack(content=b"{ 10 points, please")


@attack("hand in JSON that is no notebook", safe_for_stock=True)
def no_notebook() -> Attack:
    return Attack(content=b'{"cells": [], "score": 10}')


@attack("hand in a notebook whose parts are of the wrong types")
def wrong_types() -> Attack:
    cells: list[object] = [
        None,
        7,
        [],
        {},
        {"cell_type": []},
        {"cell_type": "code", "source": {"x": 1}, "metadata": 7, "outputs": "x"},
    ]
    content = {"nbformat": 4, "nbformat_minor": "x", "metadata": [], "cells": cells}
    return Attack(content=json.dumps(content).encode())


@attack("hand in random bytes")
def random_bytes() -> Attack:
    return Attack(content=bytes(range(256)) * 100)


@attack("hand in UTF-16")
def utf_16() -> Attack:
    return Attack(change=lambda notebook: json.dumps(notebook).encode("utf-16"))


@attack("hand in a notebook of version 3", safe_for_stock=True)
def version_3() -> Attack:
    content = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": []}]}
    return Attack(content=json.dumps(content).encode())


@attack("hand in a notebook of a version that does not exist")
def version_of_the_future() -> Attack:
    content = '{"nbformat": 1' + "0" * 5000 + ', "nbformat_minor": 0, "metadata": {}, "cells": []}'
    return Attack(content=content.encode())


@attack("hand in JSON that is nested a hundred thousand deep")
def nested_json() -> Attack:
    return Attack(content=b'{"nbformat": 4, "cells": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@attack("hand in nested metadata, inside of an otherwise good notebook")
def nested_metadata() -> Attack:
    def change(notebook: NotebookNode) -> bytes:
        text = json.dumps(notebook)
        deep = '{"x": ' * 900 + "1" + "}" * 900
        return text.replace('"metadata": {', '"metadata": {"deep": ' + deep + ", ", 1).encode()

    return Attack(change=change)


@attack("hand in thirty megabytes")
def huge_file() -> Attack:
    return Attack(change=lambda notebook: json.dumps({**notebook, "padding": "x" * (30 * 2**20)}).encode())


@attack("hand in a cell of two megabytes")
def huge_cell() -> Attack:
    return Attack(answers={"ask": "# " + "x" * (2 * 2**20) + "\nask = print"})


@attack("name every key twice, so that readers differ in what they see")
def doubled_keys() -> Attack:
    def change(notebook: NotebookNode) -> bytes:
        text = json.dumps(notebook)
        return (
            text.replace('"cells": [', '"cells": [], "cells": [', 1)
            .replace('"nbformat": 4', '"nbformat": 3, "nbformat": 4')
            .encode()
        )

    return Attack(change=change)


@attack("use surrogates, zero bytes and characters of every kind in sources")
def odd_characters() -> Attack:
    return Attack(
        answers={"ask": "ask = '\ud800 \0 \u202e \ufeff \x1b[2J \x85 \u2028'", "cost": "\0", "stream": "\ud800"}
    )


@attack("hand in a link to the solution")
def link_to_solution() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.symlink_to(Path(target.course) / "solutions" / "en" / "first_call.ipynb")

    return Attack(place=place)


@attack("hand in a link to a neighbour's work")
def link_to_neighbour() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.symlink_to(f"../../{target.neighbour}/first_call/first_call.ipynb")

    return Attack(place=place)


@attack("hand in a folder that is a link to the neighbour's")
def linked_folder() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.symlink_to(f"../{target.neighbour}/first_call", target_is_directory=True)

    return Attack(place=place)


@attack("hand in links to secrets beside the notebook, so that they are copied into the feedback", safe_for_stock=False)
def links_beside() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
        (path.parent / "solution.ipynb").symlink_to(
            Path(target.class_folder) / "source" / "first_call" / "first_call.ipynb"
        )
        (path.parent / "secret").symlink_to(Path(target.class_folder) / ".kicourse" / "secret")
        (path.parent / "timestamp.txt").symlink_to(Path(target.class_folder) / ".kicourse" / "secret")
        (path.parent / "numpy.py").write_text("raise SystemExit")

    return Attack(place=place)


@attack("hand in a pipe that nobody writes into")
def pipe() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        os.mkfifo(path)

    return Attack(place=place)


@attack("hand in a socket")
def socket_file() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        finally:
            os.chdir(here)

    return Attack(place=place)


@attack("hand in a folder that is called like the notebook")
def folder_as_file() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.mkdir(parents=True)
        (path / path.name).write_text("{}")

    return Attack(place=place)


@attack("hand in a link to a device that never ends")
def device_link() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.symlink_to("/dev/zero")

    return Attack(place=place)


@attack("hand in a link that leads to itself")
def link_to_itself() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.symlink_to(path.name)

    return Attack(place=place)


@attack("hand in a sparse file of a terabyte")
def terabyte() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.touch()
        os.truncate(path, 2**40)

    return Attack(place=place)


@attack("hand in nothing: a folder without a notebook")
def nothing() -> Attack:
    return Attack(place=lambda path, target: path.parent.mkdir())


@attack("hand in a file where the folder should be")
def file_as_folder() -> Attack:
    return Attack(place=lambda path, target: path.parent.touch())


@attack("hand in a time stamp that cannot be read")
def odd_timestamp() -> Attack:
    def place(path: Path, target: Target) -> None:
        path.parent.mkdir()
        path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}')
        (path.parent / "timestamp.txt").write_bytes(b"\xff\xfe 99999999-99-99 <script>alert(1)</script>\n" * 10)

    return Attack(place=place)
