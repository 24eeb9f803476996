"""The benchmark of the decision records runs, and has every figure that they cite."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ohttp_relay
from benchmarks import ohttp as benchmark

ROOT = Path(ohttp_relay.__file__).parent.parent
ADRS = sorted((ROOT / "docs" / "adr").glob("000[234]-*.md"))


@pytest.mark.parametrize("workers", [1, 2])
def test_processor_time_a_request_is_reported_for_echo_and_fetch(tmp_path: Path, workers: int) -> None:
    figures = benchmark.gateways(benchmark.Turns(1, 0.1), workers, tmp_path, 1e-4)
    of = "1_worker" if workers == 1 else "2_workers"
    assert figures[f"gateway_echo_cpu_us_{of}"] > 0
    assert figures[f"gateway_fetch_cpu_us_{of}"] > 0


def test_a_window_is_as_long_as_asked_also_if_the_first_guess_of_requests_was_too_low() -> None:
    assert benchmark.WINDOW >= 1.0
    with benchmark.served(benchmark.echo_app, 1) as (origin, pid):
        asked: list[int] = []

        def prepare(count: int) -> list[benchmark.Sent]:
            asked.append(count)
            return list(itertools.islice(benchmark.plain("/")(count), count))

        load = benchmark.Load(origin, pid, prepare, benchmark.PLAIN, expected=1.0)
        run = load.run(window=0.1)
    assert len(asked) > 1  # the first guess was too low
    assert run.seconds >= 0.1
    assert not run.out_of_requests
    assert len(run.times) < asked[-1] - benchmark.CONNECTIONS  # the wave before the window does not count


def test_the_figures_of_the_decisions_can_be_measured() -> None:
    options = ["--decisions", "--seconds", "0.01", "--turns", "1", "--window", "0.01"]
    command = [sys.executable, "-m", "benchmarks.ohttp", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    measured = dict(re.fullmatch(r"(.+?)\s+([\d.,]+)", line).groups() for line in done.stdout.splitlines())
    assert all(float(value.replace(",", "")) >= 0 for value in measured.values())
    assert float(measured["0004 x25519_us"]) > 0
    assert len(ADRS) == 3
    for path in ADRS:
        number = path.name[:4]
        cited = {
            f"{number} {name}" for name in re.findall(r"^\| `([^`]+)` \|", path.read_text(), re.MULTILINE)
        }
        assert cited
        assert cited <= set(measured), cited - set(measured)
