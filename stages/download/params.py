"""The section `download` of params.yaml."""

from typing import Annotated

from pydantic import Field

from stages.common.params import Section
from stages.download.dataset import clip_sources
from stages.download.model import checkpoint_sources

DatasetParams = Annotated[clip_sources.SOURCES, Field(discriminator="source")]
ModelParams = Annotated[checkpoint_sources.SOURCES, Field(discriminator="source")]


class DownloadParams(Section):
    """Sources of the clips and of the base model."""

    dataset: DatasetParams
    model: ModelParams
