"""The section `evaluate` of params.yaml."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from stages.common.errors import UserError
from stages.common.model_types import AVERAGED, describe, refuse_windows, refuse_windows_of_means
from stages.common.params import Number, Seconds, Section, Threads, find_window_conflicts


class EvaluateParams(Section):
    """How the test clips are classified."""

    threads: Threads | None = Field(
        None, description="CPU threads; null: all. A fixed number gives byte-identical results."
    )
    batch_size: int = Field(
        8, ge=1, description="Clips or windows in a batch; halved automatically if memory runs out."
    )
    window_seconds: Seconds | None = Field(
        None, description="Average the predictions of a clip's windows; null: complete clips, as in pipeline()."
    )
    calibrate: bool = Field(
        True,
        description="Correct the probabilities with a temperature, fitted to the validation clips; false: do not.",
    )
    max_background: Number | None = Field(
        0.05, ge=0, le=1, description="Largest share of the background's validation clips that gets a label; null: any."
    )
    min_answered_accuracy: Number | None = Field(
        None, ge=0, le=1, description="Smallest accuracy of the validation clips that get a label; null: any."
    )

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Check the windows against the encoded clips, and that there are validation clips for a threshold."""
        split = sections.get("split")
        no_validation = split and split.method != "published" and not split.validation_size
        if no_validation and self.min_answered_accuracy is not None:
            message = "the threshold is set on validation clips; set split.validation_size, or this to null"
            yield UserError(message, key="evaluate.min_answered_accuracy")
        yield from find_window_conflicts("evaluate.window_seconds", self.window_seconds, sections)
        encode = sections.get("resample_encode")
        if self.window_seconds and encode and encode.cache in AVERAGED:
            yield refuse_windows_of_means("evaluate.window_seconds")

    def find_unsupported(self, config: dict[str, Any]) -> Iterator[UserError]:
        """Check that the base model takes clips that can be cut."""
        if self.window_seconds and (extractor := describe(config).spectrograms):
            yield refuse_windows(extractor, "evaluate.window_seconds")
