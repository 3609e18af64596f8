"""The GPT's server, as a process of its own: `python -m kicourse.models.server`.

llama.cpp does the work (through xllamacpp). It answers on 127.0.0.1 alone and only to those who know its key, says on
its standard output where, and ends when the process it works for ends, however that happens.
"""

import argparse
import json
import os
import secrets
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
CONTEXT_TOKENS = 8192
CALLERS = 4
"""How many requests are answered side by side; they share the context."""
CACHE_MIB = 256
"""What earlier prompts may keep in memory."""
MOST_GROWTH_MIB = CACHE_MIB + 1024
LONGEST_ANSWER = 512  # tokens, where a request sets no limit: a small model may never come to an end
MOST_THREADS = 4
OWNER_SECONDS = 0.5
"""How often the server looks whether its owner lives."""


def main() -> None:
    """Serve until the process `--owner` ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--owner", type=int, required=True)
    options = parser.parse_args()
    report = _take_standard_output()
    key = secrets.token_urlsafe(16)
    try:
        server = _serve(options.weights, options.name, free_port(options.port), key)
    except Exception as error:
        report({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    _bound_memory()
    report({"url": f"{server.listening_address}/v1", "key": key, "pid": os.getpid()})
    _wait_for_end(options.owner)
    # Nothing to save, and nobody left to wait for an orderly shutdown.
    os._exit(0)


def free_port(wanted: int) -> int:
    """Return the port that is wanted, or 0, which lets the system choose, if somebody listens there."""
    with socket.socket() as probe:
        if os.name == "posix":  # lets a port be taken over from connections that are closing, not from a listener
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            return 0
    return wanted


def _serve(weights: Path, name: str, port: int, key: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {name}
    params.hostnames = [HOST]
    params.port = port
    params.api_keys = [key]
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = CALLERS
    params.kv_unified = True
    params.cache_ram_mib = CACHE_MIB
    params.n_predict = LONGEST_ANSWER
    for work in (params.cpuparams, params.cpuparams_batch):
        work.n_threads = _threads()
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _bound_memory() -> None:
    """Let this process grow by so much and no more, where the system can do that: requests may be of any length."""
    with suppress(ImportError, ValueError, OSError):
        from resource import RLIMIT_DATA, setrlimit  # which Windows lacks

        import psutil

        info = psutil.Process().memory_info()
        most = getattr(info, "data", info.vms) + MOST_GROWTH_MIB * 2**20
        setrlimit(RLIMIT_DATA, (most, most))


def _threads() -> int:
    """Half of the processors: the notebook needs the others, and a thread that must wait for one stops all threads.

    On two processors one thread writes 85 % of the tokens that two write, and twice as many while a notebook computes.
    """
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) // 2))


def _take_standard_output() -> Any:
    """Keep standard output for one report; what llama.cpp prints must not mix with it or fill the pipe."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)

    def report(content: dict[str, object]) -> None:
        with output:
            json.dump(content, output)

    return report


def _wait_for_end(pid: int) -> None:
    """Return when a process has ended, collected by its parent or not."""
    import psutil

    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(OWNER_SECONDS)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main()
