"""The example of docs/authoring.md works as it is told there."""

import re
from pathlib import Path

from kicourse.authoring import audit, catalogues
from kicourse.authoring.build import build

from .conftest import Desk, forget

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "authoring.md"
OPENING = "# %% [markdown]\n# # Averages\n\n"


def examples(language: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_unit_of_the_guide_is_built_and_has_the_hole_that_is_shown(desk: Desk) -> None:
    file = desk.root / "course" / "syllabus.toml"
    announced, _, rest = file.read_text(encoding="utf-8").partition("  [[parts.units]]\n")
    later = rest[rest.index("  [[parts.units]]") :]
    file.write_text(announced + examples("toml")[0] + "\n" + later, encoding="utf-8")
    checks, first_cell, task, mark = examples("python")
    desk.checks.write_text(checks, encoding="utf-8")
    desk.source.write_text(f"{OPENING}{first_cell}\n\n{task}", encoding="utf-8")
    desk.catalogue.unlink()
    forget()

    assert desk.root / "exercises" / "de" / "averages.ipynb" in build(["averages"])
    assert catalogues.extract("averages") == [desk.catalogue]
    (found,) = audit.audit(["averages"]).tasks
    (shown,) = examples("diff")
    assert shown.partition("\n")[2].rstrip() in [survivor.diff for survivor in found.survivors]
    assert mark.startswith("mean.equivalent(")
