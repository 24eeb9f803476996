"""Coverage-guided fuzzing of every parser: `python -m tests.ohttp_relay.fuzz TARGET [libFuzzer options]`.

Without a target it lists them.  Needs atheris (the extra `fuzz`).  A parser returns or raises an error of
this package; anything else that it raises is a finding.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ohttp_relay"]):
    from ohttp_relay.download.ranges import Unsatisfiable
    from ohttp_relay.errors import OhttpError
    from tests.ohttp_relay.test_parsers import TARGETS


def main() -> None:
    """Fuzz one target, from its seeds on."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.stdout.write("\n".join(TARGETS) + "\n")
        raise SystemExit(2)
    parse, seeds = TARGETS[sys.argv[1]]

    def once(data: bytes) -> None:
        with contextlib.suppress(OhttpError, Unsatisfiable):
            parse(data)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], "-max_len=4096", corpus], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
