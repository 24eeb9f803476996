"""What a command writes is written, or it is an error with words and a status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAYS = "from mimi_mmr.app.cli import output, terminal\nwith output.checked():\n    terminal.say('Grüße ☃')\n"
SILENT = "from mimi_mmr.app.cli import output\nwith output.checked():\n    pass\n"


def run(
    script: str, stdout: int, locale: str = "C.UTF-8", close: bool = False
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    if close:
        command = ["sh", "-c", 'exec "$0" "$@" >&-', *command]
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("target", ["full", "closed", "pipe"])
def test_output_that_can_not_be_written_is_an_error_and_no_traceback(target: str) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY) if target == "full" else broken_pipe()
    try:
        done = run(SAYS, descriptor, close=target == "closed")
    finally:
        os.close(descriptor)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("mimi-mmr: standard output can't be written to: ")


def test_a_command_without_output_does_not_need_one() -> None:
    done = run(SILENT, subprocess.DEVNULL, close=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_encoding_has_no_sign_for_becomes_a_question_mark(tmp_path: Path) -> None:
    script = f"import sys\nsys.stdout.reconfigure(encoding='iso-8859-1')\n{SAYS}"
    with (tmp_path / "out").open("wb") as file:
        done = run(script, file.fileno())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == "Grüße ?\n".encode("iso-8859-1")


def test_no_other_file_gets_the_number_of_a_closed_standard_output() -> None:
    script = f"{SILENT}import os, sys\nsys.stderr.write(str(os.open('/dev/zero', os.O_RDONLY)))\n"
    done = run(script, subprocess.DEVNULL, close=True)
    assert int(done.stderr) > 2
