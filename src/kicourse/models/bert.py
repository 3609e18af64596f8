"""The embedded BERT, through `transformers`."""

from typing import Any

from kicourse.models import weights
from kicourse.models.embedded import BERT

NAME = BERT.repository
"""The name under which `from_pretrained` finds it: sentence-transformers/all-MiniLM-L6-v2."""


def load() -> tuple[Any, Any]:
    """Return the tokenizer and the `BertModel` (in evaluation mode); asks nothing of the network.

    Raises UserError, with the command that mends it, if the weights are missing or corrupt.
    """
    weights.folder(BERT)
    from transformers import AutoTokenizer, BertModel

    options = {"revision": BERT.revision, "local_files_only": True}
    return AutoTokenizer.from_pretrained(NAME, **options), BertModel.from_pretrained(NAME, **options).eval()
