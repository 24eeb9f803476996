"""Programs that some tests run and that no Python package brings. A test that lacks one is skipped, and says why.

`.ci/packages` installs those that Debian has.
"""

from __future__ import annotations

import shutil

import pytest


def missing(*programs: str) -> str:
    """Return why a test can't run without these programs, or "" if all of them are here."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"needs {' and '.join(absent)}, which .ci/packages installs on Debian" if absent else ""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that runs these programs."""
    why = missing(*programs)
    return pytest.mark.skipif(bool(why), reason=why or "all programs are here")


def require(*programs: str) -> list[str]:
    """Return the paths of these programs, for a fixture or a test that is under way; skip it if one is missing."""
    why = missing(*programs)
    if why:
        pytest.skip(why)
    return [str(shutil.which(program)) for program in programs]
