"""A few random kills; tests/kills.py does hundreds."""

from pathlib import Path

import pytest
from kills import OUTSIDE, kill_many


@pytest.mark.rare
@pytest.mark.slow
def test_killed_stages_leave_nothing(copied: Path) -> None:
    counts = kill_many(copied, ["download@dataset", "split"], kills=2, seed=3)
    assert not {name for name in counts if not name.startswith("SIG")} - {OUTSIDE}
