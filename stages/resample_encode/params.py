"""The section `resample_encode` of params.yaml."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from stages.common.errors import UserError
from stages.common.model_types import describe
from stages.common.params import Seconds, Section, Threads


class ResampleEncodeParams(Section):
    """How a clip becomes the model's input."""

    max_seconds: Seconds = Field(description="Use at most this many seconds of each clip, from its start.")
    # Without a default, because DVC reads this key for evaluate_baselines.
    segments: bool = Field(
        description="Cut longer clips into segments of max_seconds, to their end, instead of using their start."
    )
    feature_extractor: dict[str, bool | int | float | str] = Field(
        {}, description="Settings that replace those of the base model's feature extractor."
    )
    workers: Threads | None = Field(None, description="Number of threads; null: one for each core.")
    cache: Literal["input", "feature_encoder", "base", "layers"] = Field(
        "input",
        description="What to store: input (of the model), or the output of its feature_encoder, base, or all layers.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32", description="Of the cached part: auto (bf16 if the device supports it), fp32 or bf16."
    )

    def find_unsupported(self, config: dict[str, Any]) -> Iterator[UserError]:
        """Check that the rest of the model uses only the output of the cached part.

        A head with a projector is linear up to the mean over frames. AST's head has none and starts from a pooled
        state; a weighted sum of layers needs all of them. SEW has fewer frames in its layers than in its output.
        """
        has = describe(config).has
        allowed = {
            "input": True,
            "feature_encoder": "feature_encoder" in has,
            "base": "projector" in has and not config.get("use_weighted_layer_sum"),
            "layers": {"projector", "same_frames"} <= has,
        }
        if not allowed[self.cache]:
            others = " or ".join(part for part, is_allowed in allowed.items() if is_allowed)
            yield UserError(
                f"the output of the {self.cache} of a {config.get('model_type')} model cannot be cached; set {others}",
                key="resample_encode.cache",
            )

    def settings(self) -> dict[str, Any]:
        """Return what encoding.json records: all that has an effect on the features."""
        unused = {"workers"} if self.segments else {"workers", "segments"}
        return self.model_dump(exclude=unused)
