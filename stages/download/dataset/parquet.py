"""Read Parquet data sets with an audio and a label column, without decoding the audio."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.errors import UserError

if TYPE_CHECKING:
    from datasets import DatasetBuilder

# The first bytes of the formats that libsndfile reads; MP3 has no fixed ones.
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b".snd": ".au"}


def open_data_set(folder: Path, config: str | None) -> "DatasetBuilder":
    """Find the Parquet files of a data set, and its features if its card states them.

    Raises:
        UserError: it has several configurations, or not this one.
    """
    from datasets import load_dataset_builder

    try:
        return load_dataset_builder(str(folder), config)
    except (ValueError, OSError) as error:
        raise UserError(f"{str(error).splitlines()[0]}; set the configuration", key="download.dataset.config") from None


def read_rows(builder: "DatasetBuilder", audio_column: str, label_column: str) -> Iterator[tuple[str, bytes]]:
    """Yield <label>/<file> and content of each row, in the data set's order.

    `load_dataset` would first write a copy of everything, as Arrow.

    Raises:
        UserError: a column is missing, or has no audio.
    """
    import pyarrow.parquet as pq

    number = 0
    for file in (file for files in builder.config.data_files.values() for file in files):
        parquet = pq.ParquetFile(file)
        _check_columns(parquet.schema_arrow, audio_column, label_column)
        to_name = label_names(parquet.schema_arrow, builder.info.features, label_column)
        for batch in parquet.iter_batches(64, columns=[audio_column, label_column]):
            for row in batch.to_pylist():
                clip, label = row[audio_column] or {}, to_name(row[label_column])
                content = clip.get("bytes") or b""
                suffix = MAGIC.get(content[:4], ".mp3")
                name = Path(clip.get("path") or f"{label}.{number:05d}{suffix}").name
                number += 1
                yield f"{label}/{name}", content


def _check_columns(schema: Any, audio_column: str, label_column: str) -> None:
    import pyarrow as pa

    for key, column in (("audio_column", audio_column), ("label_column", label_column)):
        if column not in schema.names:
            known = ", ".join(schema.names)
            raise UserError(f"no column {column}; the data set has {known}", key=f"download.dataset.{key}")
    if not pa.types.is_struct(schema.field(audio_column).type):
        raise UserError(f"column {audio_column} has no audio", key="download.dataset.audio_column")


def label_names(schema: Any, features: Any, column: str) -> Callable[[Any], str]:
    """Return a function from a label column's values to names, by the ClassLabel in the card or the file if any.

    Null, and -1 of a ClassLabel, which data sets on the Hub use for unlabelled rows, have no name: "".
    """
    from datasets import ClassLabel, Features

    features = features or Features.from_arrow_schema(schema)
    label = features.get(column)
    names = dict(enumerate(label.names)) | {-1: ""} if isinstance(label, ClassLabel) else {}

    def to_name(value: Any) -> str:
        # A label becomes the name of a folder.
        return "" if value is None else str(names.get(value, value)).replace("/", "-")

    return to_name
