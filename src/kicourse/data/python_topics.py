"""A manual that is on every learner's machine: Python's own language reference, as `help("...")` shows it.

    documents = python_topics.documents()
    documents[0].name, documents[0].text
    questions = python_topics.questions()
    questions[0].answered_by(documents[0].text)

It is the text of the learner's own Python, 3.11 to 3.14: numbers differ a little between versions.
"""

from collections.abc import Iterator

from kicourse.data.questions import Document, Question

FENCE = "```"


def documents() -> list[Document]:
    """Return the topics with their code between fences, the shortest first.

    Large topics repeat small ones word by word; a block that an earlier topic has is left out, and so is a topic of
    which nothing is left.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    found: list[Document] = []
    for name, text in sorted(topics.items(), key=lambda topic: (len(topic[1]), topic[0])):
        blocks = []
        for block in _blocks(text):
            key = " ".join(block.split())
            if key not in seen:
                seen.add(key)
                blocks.append(block)
        if blocks:
            found.append(Document(name, "\n\n".join(blocks) + "\n"))
    return found


def _blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs of a topic, and its code, each example whole and between fences."""
    introduced: int | None = None  # the indentation of a paragraph that ends with a colon, and so announces code
    code: list[str] = []
    for paragraph in _paragraphs(text):
        indentation = min(_indentation(line) for line in paragraph.splitlines())
        is_text = paragraph.lstrip().startswith(("* ", "1. ", "Changed in", "New in", "See also", "Note:"))
        if introduced is not None and indentation > introduced and not is_text:
            code.append(paragraph)
            continue
        if code:
            yield _fenced(code)
            code = []
        yield paragraph
        last = paragraph.splitlines()[-1]
        introduced = _indentation(last) if last.endswith(":") and not is_text else None
    if code:
        yield _fenced(code)


def _paragraphs(text: str) -> list[str]:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return [paragraph.strip("\n") for paragraph in lines.split("\n\n") if paragraph.strip()]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _fenced(code: list[str]) -> str:
    from textwrap import dedent

    example = dedent("\n\n".join(code))
    return f"{FENCE}\n{example}\n{FENCE}"


_QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Why does my function remember the list from the last call when I use [] as a default?",
        (
            "the expression is evaluated once, when the function is defined",
            "the same pre-computed value is used for each call",
            "the same pre- computed value is used for each call",
        ),
    ),
    ("How do I stop a loop early?", ("It terminates the nearest enclosing loop",)),
    (
        "When does the else branch after a for loop run?",
        (
            "When the iterator is exhausted, the suite in the else clause, if present, is executed",
            "terminates the loop without executing the else clause",
        ),
    ),
    (
        "How can I change a variable of the outer function from an inner one?",
        (
            "causes the listed identifiers to refer to previously bound variables in the nearest enclosing scope",
            "causes the listed identifiers to refer to names previously bound in nonlocal scopes",
        ),
    ),
    (
        "Are assert statements still checked when Python runs with -O?",
        ("The current code generator emits no code for an assert statement when optimization is requested",),
    ),
    (
        "How do I make a tuple with a single element?",
        (
            "The trailing comma is required only to create a single tuple",
            "A trailing comma is required only to create a one-item tuple",
        ),
    ),
    ("Can I write a < b < c, and how often is b evaluated?", ("Comparisons can be chained arbitrarily",)),
    (
        "Why can't I use a list as a key of a dictionary?",
        (
            "not acceptable as keys are values containing lists or dictionaries",
            "values that are not hashable, that is, values containing lists, dictionaries",
            "values containing lists, dictionaries or other mutable types",
        ),
    ),
    (
        "My class defines __eq__ and its objects can no longer be put into a set. Why?",
        ("does not define __hash__() will have its __hash__() implicitly set to None",),
    ),
    (
        "What is the difference between __getattr__ and __getattribute__?",
        ("Called when the default attribute access fails with an AttributeError",),
    ),
    (
        "How can I save memory when I create millions of small objects?",
        ("The space saved over using __dict__ can be significant",),
    ),
    ("When exactly does the destructor of an object run?", ("Called when the instance is about to be destroyed",)),
    (
        "Which method is called when a dict has no such key?",
        (
            "Called by dict.__getitem__() to implement self[key] for dict subclasses when key is not in the dictionary",
            "If a subclass of dict defines a method __missing__()",
        ),
    ),
    (
        "How do I remove the prefix www. from a text without losing other letters?",
        (
            "If the string starts with the prefix string, return string[len(prefix):]",
            "See str.removeprefix() for a method that will remove a single prefix string",
        ),
    ),
    (
        "Compare two words and ignore upper and lower case, with German ß too",
        (
            "Casefolded strings may be used for caseless matching",
            "Casefolding is similar to lowercasing but more aggressive",
        ),
    ),
    ("Pad a number with zeros on the left", ("Return a copy of the string left filled with ASCII 0 digits",)),
    (
        "Glue a list of words into one text with commas between them",
        ("Return a string which is the concatenation of the strings in iterable",),
    ),
    (
        "How do I show an amount as 1,234,567?",
        (
            "option signals the use of a comma for a thousands separator",
            "Using the comma as a thousands separator",
        ),
    ),
    ("Print a fraction as a percentage", ("Expressing a percentage",)),
    ("Do dictionaries keep the order in which I added the entries?", ("Dictionaries preserve insertion order",)),
    (
        "What does the finally block do when the try block returns?",
        (
            "the finally clause is also executed on the way out",
            "is also executed ‘on the way out.’",
        ),
    ),
    ("Why is the exception variable gone after the except block?", ("it is cleared at the end of the except clause",)),
    (
        "Raise a new exception and keep the original one as its cause",
        ("The from clause is used for exception chaining",),
    ),
    (
        "How do I catch several exceptions that were raised together in a group?",
        (
            "The except* clause(s) are used for handling ExceptionGroups",
            "are used for handling ExceptionGroup",
        ),
    ),
    (
        "Open two files in one with statement",
        ("With more than one item, the context managers are processed as if multiple with statements were nested",),
    ),
    (
        "What may __exit__ return so that an error is not passed on?",
        ("If an exception is supplied, and the method wishes to suppress the exception",),
    ),
    (
        "Does changing the loop variable inside the loop influence the next round?",
        ("this will not affect the for-loop",),
    ),
    (
        "What does the star before a parameter in a function definition mean?",
        ("it is initialized to a tuple receiving any excess positional parameters",),
    ),
    (
        "How do I force callers to use the name of an argument?",
        ("are keyword-only parameters and may only be passed by keyword arguments",),
    ),
    ("A function without a name, in one line", ("used to create anonymous functions",)),
    (
        "How does @something above a function work?",
        (
            "A function definition may be wrapped by one or more decorator expressions",
            "Decorator expressions are evaluated when the function is defined",
        ),
    ),
    ("Why does -1 ** 2 give -1?", ("binds more tightly than unary operators on its left",)),
    (
        "Which values count as false in an if?",
        (
            "constants defined to be false",
            "zero of any numeric type",
        ),
    ),
    (
        "What does and return: True, or one of its operands?",
        ("first evaluates x; if x is false, its value is returned",),
    ),
    (
        "Import a module from the parent package with dots",
        (
            "you can specify how high to traverse up the current package hierarchy",
            "Two dots means up one package level",
        ),
    ),
    (
        "Stop in the debugger only when a condition is true",
        ("an expression which must evaluate to true before the breakpoint is honored",),
    ),
    (
        "Look into a program after it has crashed",
        (
            "enter post-mortem debugging of the traceback",
            "post-mortem debugging of the exception found",
            "enter post-mortem debugging",
        ),
    ),
    (
        "How are two underscores in front of an attribute's name treated inside a class?",
        (
            "re-written to use a mangled form",
            "private names are transformed to a longer form",
            "Private names are transformed to a longer form before code is generated",
        ),
    ),
    ("Do integers overflow when they get too large?", ("represent numbers in an unlimited range",)),
    (
        "Why does 7 // -2 give -4 and not -3?",
        (
            "the result is that of mathematical division with the floor function applied",
            "floor function applied to the result",
        ),
    ),
    (
        "Multiply a list by 3: why do all rows change together?",
        ("items in the sequence s are not copied; they are referenced multiple times",),
    ),
    ("Match any value in a match statement", ("A wildcard pattern always succeeds",)),
    ("Wait for the result of a coroutine", ("Suspend the execution of coroutine on an awaitable object",)),
    (
        "What does x is y compare?",
        (
            "test for an object’s identity",
            "test for an objects identity",
        ),
    ),
    ("Adding strings in a loop is slow. What is better?", ("you can build a list and use str.join() at the end",)),
    (
        "How much does a range of a billion numbers need in memory?",
        ("will always take the same (small) amount of memory",),
    ),
    ("Write a backslash without escaping it", ("treat backslashes as literal characters",)),
)


def questions() -> list[Question]:
    """Return questions in the words of people who do not know the manual, each with quotations that answer it."""
    return [Question(question, answers) for question, answers in _QUESTIONS]
