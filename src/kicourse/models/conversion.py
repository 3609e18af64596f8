"""The GPT for PyTorch: the served 4-bit weights, unpacked once, so that `transformers` can load and train them.

It is the same model to the last weight (up to half precision), not the original that was quantised; therefore it
lies in a folder of the course's own and not under a name of the Hub.
"""

import hashlib
import io
import json
import os
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

from kicourse.models import hub_cache
from kicourse.models.embedded import GPT

SIZE = 272_600_000
"""What the unpacked model takes on disk, in bytes, roughly."""

_RECORD = "kicourse.json"


def folder() -> Path:
    """The folder of the unpacked GPT, whether it is there or not."""
    return hub_cache.home() / "kicourse" / "SmolLM2-135M-Instruct"


def state() -> Literal["ready", "missing", "corrupt"]:
    """Whether the unpacked GPT is there, and is what was unpacked from today's weights (read in full)."""
    record = folder() / _RECORD
    if not record.is_file():
        return "missing"
    return "ready" if json.loads(record.read_text(encoding="utf-8")) == _record(folder()) else "corrupt"


def discard() -> None:
    """Remove the unpacked GPT, if there is one."""
    shutil.rmtree(folder(), ignore_errors=True)


def convert(source: Path) -> Path:
    """Unpack the GPT from the folder with its verified GGUF file; half a minute. Returns the new folder.

    The folder appears when it is complete; what is left of an interrupted attempt is overwritten by the next.
    """
    unfinished = folder().with_name(f"{folder().name}.incomplete")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _unpack(source, unfinished)
    record = json.dumps(_record(unfinished), indent=2)
    (unfinished / _RECORD).write_text(record, encoding="utf-8")
    discard()
    os.replace(unfinished, folder())
    return folder()


def _unpack(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    file = GPT.files[0].name
    # The bars of the libraries tell the reader nothing: hide them.
    with redirect_stderr(io.StringIO()):
        quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
        config = quantised.config
        # Transformers refuses to save what it takes for a quantised model; a plain one takes the weights over.
        del config.quantization_config
        model = LlamaForCausalLM(config)
        model.load_state_dict(quantised.state_dict())
        model.half().save_pretrained(target)
        AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
    _load_in_single_precision(target / "config.json")


def _load_in_single_precision(path: Path) -> None:
    """Half precision saves disk, but processors compute in single: let `from_pretrained` load it so."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _record(place: Path) -> dict[str, Any]:
    """What the files in `place` were unpacked from, and the SHA-256 of each."""
    hashes = {}
    for path in sorted(place.iterdir()):
        if path.name != _RECORD:
            with path.open("rb") as stream:
                hashes[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"source": GPT.files[0].sha256, "files": hashes}
