"""The section `publish` of params.yaml."""

from collections.abc import Iterator
from importlib.util import find_spec

from pydantic import Field

from stages.common.errors import UserError
from stages.common.hub_id import HubId
from stages.common.params import Number, Section


class PublishParams(Section):
    """The model repository on the Hub, and its Space."""

    name: HubId = Field(
        "my-audio-classifier", description="Name of the repo on the Hub, or owner/name; without an owner: your account."
    )
    push: bool = Field(False, description="Push to the Hub; false: only assemble models/published and models/space.")
    private: bool = Field(True, description="Create the repo as private; an existing repo keeps its visibility.")
    onnx: bool = Field(False, description="Also write onnx/model.onnx, for ONNX Runtime and transformers.js.")
    space: bool = Field(
        False, description="With push, also push models/space: a web page that anyone with access can try the model on."
    )
    min_accuracy: Number | None = Field(None, ge=0, le=1, description="Do not push below this test accuracy.")

    def find_obstacles(self) -> Iterator[UserError]:
        """Check that there is a token for a push, and the packages for ONNX."""
        if self.onnx and (missing := find_missing_packages()):
            yield UserError(missing, key="publish.onnx")
        if not self.push:
            return
        from huggingface_hub import get_token

        if get_token() is None:
            message = "true needs a token for the Hub; log in with `hf auth login`, or set HF_TOKEN"
            yield UserError(message, key="publish.push")


def find_missing_packages() -> str | None:
    """Return why a model cannot be exported to ONNX, and how to fix it; None if it can."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # without an origin, it is only a folder of this name
            return f"{package} is not installed; pip install --constraint constraints.txt --editable '.[onnx]'"
    return None
