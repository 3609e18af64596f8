import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kicourse import doctor

KICOURSE = str(Path(sys.executable).with_name("kicourse"))


def look(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return subprocess.run(
        [KICOURSE, "doctor", *arguments],
        env=surroundings | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_runs_these_tests_is_fit() -> None:
    done = look()
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("Python", "PyTorch", "Kernel", "Model gpt", "GPT", "Ports", "Sandbox", "Chromium"):
        assert f"  {name}: " in done.stdout
    assert "the embedded one answers at http://127.0.0.1:" in done.stdout


def test_missing_weights_are_a_problem_with_the_command_that_mends_it(tmp_path: Path) -> None:
    done = look(HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "FIX   Model gpt" in done.stdout
    assert "kicourse models pull" in done.stdout


def test_ones_own_provider_is_told_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (finding,) = doctor.language_model()
    assert finding.state == "note"
    assert "http://127.0.0.1:9/v1" in finding.found
    assert "secret" not in finding.found + finding.mend


def test_a_port_in_use_is_no_problem() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(doctor, "LAB_PORT", taken.getsockname()[1])
            (finding,) = doctor.ports()
    assert finding.state == "fine"
    assert "in use" in finding.found


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_GIBIBYTES", 10**9)
    assert {finding.state for finding in doctor.disk()} == {"problem"}


def test_a_kernel_of_another_python_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/opt/other/python"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert list(doctor.jupyter())[-1].state == "problem"


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is a part of Linux")
def test_landlock_is_there_if_a_ruleset_can_be_made() -> None:
    attributes = ctypes.c_uint64(1)  # a ruleset about one file access right, the smallest there is
    ruleset = ctypes.CDLL(None).syscall(444, ctypes.byref(attributes), 8, 0)
    assert (ruleset >= 0) == (doctor.landlock_abi() > 0)
    if ruleset >= 0:
        os.close(ruleset)
