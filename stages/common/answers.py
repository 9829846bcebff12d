"""Turn logits into probabilities, and these into an answer: one of the labels, or none of them. It needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from stages.common.errors import UserError

NONE = "none of these"  # the answer if no label is


class Answering(NamedTuple):
    """How a model answers: the key `answer` of the config.json of a published model.

    temperature: the logits are divided by it.
    threshold: a label is an answer if its probability is larger; None: there is no threshold.
    background: the label of clips that have none of the others; None: there is no such label.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    background: str | None = None


def read_answering(config: dict[str, Any], file: Path) -> Answering:
    """Return how a model answers. Without the key `answer`, it is the model's most probable label.

    Args:
        config: the content of the model's config.json. file: its path, for messages.

    Raises:
        UserError: the content of `answer` is not as `Answering` describes it, or its background is no label.
    """
    try:
        answering = TypeAdapter(Answering).validate_python(config.get("answer") or {})
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(["answer", *map(str, detail["loc"])])
        raise UserError(f"{where}: {detail['msg']}; correct it, or remove `answer`", file=file) from None
    labels = config.get("id2label", {}).values()
    if answering.background is not None and answering.background not in labels:
        raise UserError(f"answer.background: {answering.background} is no label; correct it", file=file)
    return answering


def to_probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Compute the softmax of logits that are divided by a temperature. The most probable label stays the same.

    Args:
        logits: float64, shape (..., labels).

    Returns:
        float64, shape (..., labels); rows sum to 1.
    """
    scaled = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    exponentials = np.exp(scaled)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def score_labels(probabilities: np.ndarray, labels: Sequence[str], background: str | None) -> np.ndarray:
    """Return the largest probability of a label; 0 if the background is the most probable, the first of equal ones.

    Args:
        probabilities: float64, shape (..., labels). labels: in the order of ids.

    Returns:
        float64, shape (...).
    """
    best = probabilities.max(axis=-1)
    if background is None:
        return best
    is_background = probabilities.argmax(axis=-1) == list(labels).index(background)
    return np.where(is_background, 0.0, best)


def is_answered(probabilities: np.ndarray, labels: Sequence[str], answering: Answering) -> np.ndarray:
    """Return whether the most probable label is an answer, bool, shape (...); if not, the answer is NONE.

    Args:
        probabilities: after the temperature, float64, shape (..., labels); for a recording, the mean of its windows'.
        labels: in the order of ids.
    """
    return score_labels(probabilities, labels, answering.background) > (answering.threshold or 0.0)
