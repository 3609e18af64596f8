"""The seeds that grading tries answers with: unknown to learners, and others for every submission."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from kicourse.errors import UserError

_BYTES = 32


def secret_of(path: Path) -> bytes:
    """Return a class's secret from its file; made at first use, for its owner alone to read.

    Raises UserError for a file that holds no secret.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(_BYTES))
        os.replace(fresh, path)
    try:
        secret = bytes.fromhex(path.read_text().strip())
        if len(secret) < _BYTES:
            raise ValueError("too short")
        return secret
    except ValueError as error:
        raise UserError(
            f"{path} does not hold a class's secret any more. Take it from a backup, or remove the file: then every"
            " submission is graded anew, on other data."
        ) from error


def seed_for(secret: bytes, unit: str, task: str, student: str, notebook: bytes) -> int:
    """Return a task's seed: from the secret and the rebuilt notebook, so that a new submission meets new data."""
    message = json.dumps([unit, task, student, hashlib.sha256(notebook).hexdigest()]).encode()
    return int.from_bytes(hmac.digest(secret, message, "sha256")[:7])
