"""What stages need of the tables and JSON files that earlier stages wrote. Further columns and keys are allowed."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field

SplitName = Literal["train", "validation", "test"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Rejected(NamedTuple):
    """A row of data/raw/rejected.csv."""

    file: Text
    reason: Text


class Repetition(NamedTuple):
    """A row of data/raw/repetitions.csv."""

    clip: Text
    recording: Text


class Assignment(NamedTuple):
    """A row of data/splits.csv."""

    clip: Text
    label: Text
    split: SplitName
    group: Text


class PublishedSplit(NamedTuple):
    """A row of data/raw/published.csv."""

    clip: Text
    split: SplitName


class Prediction(NamedTuple):
    """A row of metrics/predictions.csv, without the probabilities."""

    clip: Text
    label: Text
    prediction: Text


class Source(BaseModel):
    """A source.json."""

    source: str
    id: str
    licence: str | list[str]
    title: str = ""
    revision: str = ""
    background: Text | None = None
    corrections: str = ""


class Counts(BaseModel):
    """metrics/split.json. validation_from_train: whether a published split had no validation clips."""

    method: str
    seed: int
    total: dict[SplitName, Count]
    left_out: Count
    validation_from_train: bool = False
    leakage: dict[str, dict[Literal["test_clips", "known", "shared"], Count]]


class Baselines(BaseModel):
    """metrics/baselines.json."""

    majority: Share
    spectrum: Share


class Encoding(BaseModel):
    """data/encoded/encoding.json."""

    max_seconds: Annotated[float, Field(gt=0)]
    segments: bool = False
    background: Text | None = None


class Training(BaseModel):
    """models/finetuned/training.json.

    averaged_epochs: whose weights were averaged, if the mean was better than the best epoch. Then selection_accuracy is
        that of the mean. layer_weights: if the head gets a weighted sum of the layers.
    """

    selected_on: SplitName
    best_epoch: Annotated[int, Field(ge=1)]
    averaged_epochs: list[int] = []
    selection_accuracy: Share | None = None
    layer_weights: list[Share] = []
    train: dict[str, Any]
    resample_encode: Encoding


class Answer(BaseModel):
    """The key `answer` of metrics/metrics.json."""

    temperature: Annotated[float, Field(gt=0)]
    threshold: Share | None
    background: Text | None
    validation_clips: Count
    validation_background_clips: Count
    coverage: Share
    accuracy: Share | None
    background_clips: Count
    let_through: Share | None
    curve: list[dict[str, float]]


class Metrics(BaseModel):
    """metrics/metrics.json."""

    selection_accuracy: Share
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    macro_f1: Share
    baselines: dict[str, Share]
    beats_baselines: str
    selected_on: SplitName
    n_clips: Count
    n_groups: Count
    interval_of: str
    answer: Answer
    per_label: list[dict[str, Any]]


class ModelConfig(BaseModel):
    """models/finetuned/config.json."""

    architectures: Annotated[list[str], Field(min_length=1)]
    id2label: dict[str, str]


class ExtractorConfig(BaseModel):
    """models/finetuned/preprocessor_config.json."""

    sampling_rate: Annotated[int, Field(gt=0)]
