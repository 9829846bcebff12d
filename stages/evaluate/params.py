"""The section `evaluate` of params.yaml."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Number, Section


class EvaluateParams(Section):
    """How the test clips are classified."""

    threads: int | None = Field(
        None, ge=1, description="CPU threads; null: all. A fixed number gives byte-identical results."
    )
    batch_size: int = Field(
        8, ge=1, description="Clips or windows in a batch; halved automatically if memory runs out."
    )
    window_seconds: Number | None = Field(
        None, gt=0, description="Average the predictions of a clip's windows; null: complete clips, as in pipeline()."
    )

    def find_conflicts(self, sections: dict[str, Any]) -> Iterator[UserError]:
        """Check the windows against the encoded clips."""
        encode = sections.get("resample_encode")
        if not encode or not self.window_seconds:
            return
        if self.window_seconds > encode.max_seconds:
            message = f"{self.window_seconds} s is longer than resample_encode.max_seconds: {encode.max_seconds}"
            yield UserError(message, key="evaluate.window_seconds")
        if encode.cache == "base":
            message = "the cached output of the base model cannot be cut into windows; set it to null"
            yield UserError(message, key="evaluate.window_seconds")
