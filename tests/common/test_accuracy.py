import evaluate
import numpy as np
import pytest

from stages.common.accuracy import Accuracy


def test_cache_need_not_be_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can make a folder in /proc."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", "/proc/nowhere")
    assert Accuracy().compute(predictions=np.array([0, 1, 1]), references=np.array([0, 1, 0])) == {"accuracy": 2 / 3}
