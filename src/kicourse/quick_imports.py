"""What spares every command that reads notebooks more than a second of imports."""

import sys


def leave_grammar_out() -> None:
    """Keep jsonschema, which nbformat imports, from building a grammar of internet addresses: more than a second.

    It is for a format that no notebook's schema has. jsonschema goes without where the package is not installed, and
    None makes Python say so.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
