from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import user_error
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import HubertConfig

from stages.common.answers import Answering, is_answered, read_answering, score_labels, to_probabilities

LABELS = ["a", "noise", "b"]
LOGITS = arrays(np.float64, (4, 3), elements=st.floats(-50, 50))


@pytest.mark.slow
@given(LOGITS, st.floats(0.1, 10))
def test_temperature_does_not_change_the_most_probable_label(logits: np.ndarray, temperature: float) -> None:
    probabilities = to_probabilities(logits, temperature)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    rows = np.arange(len(logits))
    assert (probabilities[rows, logits.argmax(axis=1)] == probabilities.max(axis=1)).all()
    np.testing.assert_allclose(to_probabilities(logits + 1000, temperature), probabilities, atol=1e-9)
    powers = to_probabilities(logits) ** (1 / temperature)
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-9)


def test_background_and_small_probabilities_are_no_answer() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.45, 0.1, 0.45]])
    assert score_labels(probabilities, LABELS, "noise").tolist() == [0.7, 0.0, 0.4, 0.45]
    assert score_labels(probabilities, LABELS, None).tolist() == [0.7, 0.5, 0.4, 0.45]
    assert is_answered(probabilities, LABELS, Answering()).all()
    assert is_answered(probabilities, LABELS, Answering(background="noise")).tolist() == [True, False, True, True]
    answering = Answering(1.0, 0.4, "noise")
    assert is_answered(probabilities, LABELS, answering).tolist() == [True, False, False, True]
    assert bool(is_answered(probabilities[1], LABELS, answering)) is False


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"temperature": 0}, "answer.temperature: "),
        ({"threshold": 1.5}, "answer.threshold: "),
        ({"background": "speech"}, "answer.background: speech is no label"),
        ("high", "answer: "),
    ],
)
def test_unusable_answer_is_named(answer: Any, expected: str) -> None:
    config = {"id2label": dict(enumerate(LABELS)), "answer": answer}
    error = user_error(lambda: read_answering(config, Path("config.json")))
    assert expected in str(error)
    assert error.file == "config.json"


def test_transformers_keeps_answer(tmp_path: Path) -> None:
    answer = {"temperature": 1.5, "threshold": None, "background": "noise"}
    HubertConfig(answer=answer, id2label=dict(enumerate(LABELS))).save_pretrained(tmp_path)
    config = HubertConfig.from_pretrained(tmp_path)
    assert config.answer == answer
    assert read_answering(config.to_dict(), tmp_path / "config.json") == Answering(1.5, None, "noise")
    assert read_answering({}, tmp_path / "config.json") == Answering()
