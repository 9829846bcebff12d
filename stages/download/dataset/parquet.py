"""Read Parquet data sets with an audio and a label column, without decoding the audio."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.errors import UserError
from stages.common.extensions import EXTENSIONS, UNDECODABLE
from stages.common.lfs import POINTER, is_pointer
from stages.download.dataset.label_cells import describe_several
from stages.download.dataset.labels import Spellings
from stages.download.dataset.names import Place
from stages.download.dataset.selection import Selection, find_fault, is_hidden, name_candidates, show_path

if TYPE_CHECKING:
    from datasets import DatasetBuilder

# The first bytes of the formats that libsndfile reads; MP3 has no fixed ones.
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b".snd": ".au", b"caff": ".caf"}

# What pyarrow and datasets raise for damaged files, besides Arrow's own errors.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)


class Row(NamedTuple):
    """A row of a data set.

    path: of the clip, as the data set states it. content: of its file; None if the row has none. split: its name.
    """

    label: str
    path: str
    content: bytes | None
    split: str = ""


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


def read_rows(builder: "DatasetBuilder", audio_column: str, label_column: str) -> Iterator[Row]:
    """Yield the rows, in the data set's order.

    `load_dataset` would first write a copy of everything, as Arrow.

    Raises:
        UserError: a column is missing or has another type, or a file is damaged.
    """
    import pyarrow.parquet as pq

    number = 0
    listed = [(Path(file), str(split)) for split, files in builder.config.data_files.items() for file in files]
    for file, split in listed:
        with _named_damage(file):
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            _check_columns(parquet.schema_arrow, audio_column, label_column)
            to_name = label_names(parquet.schema_arrow, builder.info.features, label_column)
            for batch in parquet.iter_batches(64, columns=[audio_column, label_column]):
                for row in batch.to_pylist():
                    clip = row[audio_column] or {}
                    label = _read_label(row[label_column], to_name, clip.get("path") or f"row {number}")
                    path = name_row(clip, label, number)
                    number += 1
                    yield Row(label, path, clip.get("bytes"), split)


def select_rows(rows: Iterator[Row], spellings: Spellings) -> Selection:
    """Select the rows that can be clips. spellings: see `unite_labels`.

    Raises:
        UserError: two labels would get one folder.
    """
    places: dict[int, tuple[str, Place]] = {}
    rejected: list[tuple[str, str]] = []
    folders: dict[str, str] = {}
    for position, row in enumerate(rows):
        folder = row.label.replace("/", "-")
        parts = tuple(part for part in PurePosixPath(row.path).parts if part != "..")
        path = f"{folder}/{parts[-1]}"
        if fault := _find_row_fault(row, path):
            rejected.append((show_path(path), fault))
            continue
        if folders.setdefault(folder, row.label) != row.label:
            message = f"the labels {folders[folder]!r} and {row.label!r} would have one folder, {folder}; rename one"
            raise UserError(message, key="download.dataset.label_column")
        places[position] = path, Place(folder, parts)
    candidates, unnamed = name_candidates(places, spellings)
    return Selection(candidates, [], rejected + unnamed)


def _find_row_fault(row: Row, path: str) -> str | None:
    if not row.label.strip():
        return "no label"
    if row.content is None:
        return "its row has no audio, at most the path of a file elsewhere"
    if row.label in (".", "..") or any(map(is_hidden, PurePosixPath(path).parts)):
        return "its label or name begins with a dot, which would hide the file; rename it"
    return find_fault(path)


def name_row(clip: dict[str, Any], label: str, number: int) -> str:
    """Return the path of a row's clip, with an extension that fits its content if it has none of audio."""
    suffix = MAGIC.get((clip.get("bytes") or b"")[:4], ".mp3")
    path = PurePosixPath(clip.get("path") or "")
    if not path.name:
        return f"{label.replace('/', '-')}.{number:05d}{suffix}"
    known = path.suffix.lower() in EXTENSIONS | UNDECODABLE
    return str(path.relative_to(path.anchor)) + ("" if known else suffix)


@contextmanager
def _named_damage(file: Path) -> Iterator[None]:
    """Name the file if it cannot be read."""
    import pyarrow as pa

    if is_pointer(file):
        raise UserError(f"it is {POINTER}", file=file.name)
    try:
        yield
    except (pa.lib.ArrowException, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"broken Parquet file ({' '.join(str(error).split())[:300]}); set another download.dataset.revision, or "
            "report it to the repo's owner",
            file=file.name,
        ) from None


def _check_columns(schema: Any, audio_column: str, label_column: str) -> None:
    import pyarrow as pa

    for key, column in (("audio_column", audio_column), ("label_column", label_column)):
        if column not in schema.names:
            known = ", ".join(schema.names)
            raise UserError(f"no column {column}; the data set has {known}", key=f"download.dataset.{key}")
    audio, label = schema.field(audio_column).type, schema.field(label_column).type
    fields = {field.name: field.type for field in audio} if pa.types.is_struct(audio) else {}
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(is_type(fields.get("bytes")) for is_type in binary if "bytes" in fields):
        message = f"column {audio_column} has no audio: it is {audio}, and should have bytes and path"
        raise UserError(message, key="download.dataset.audio_column")
    if "path" in fields and not any(is_type(fields["path"]) for is_type in text):
        message = f"column {audio_column} has paths that are {fields['path']}, not text"
        raise UserError(message, key="download.dataset.audio_column")
    if pa.types.is_list(label) or pa.types.is_large_list(label) or pa.types.is_fixed_size_list(label):
        label = label.value_type  # a row may have a list of one label
    if pa.types.is_nested(label) or any(is_type(label) for is_type in binary[:3]):
        message = f"column {label_column} is {schema.field(label_column).type}; a label is text or a number"
        raise UserError(message, key="download.dataset.label_column")


def _read_label(value: Any, to_name: Callable[[Any], str], clip: str) -> str:
    """Return the label of a row, which may be a list with one label; "" if there is none."""
    values = value if isinstance(value, list) else [value]
    names = list(dict.fromkeys(filter(None, map(to_name, values))))
    if len(names) > 1:
        raise UserError(describe_several(clip, names), key="download.dataset.label_column")
    return "".join(names)


def label_names(schema: Any, features: Any, column: str) -> Callable[[Any], str]:
    """Return a function from a label column's values to names, by the ClassLabel in the card or the file if any.

    Null, NaN, and -1 of a ClassLabel, which data sets on the Hub use for unlabelled rows, have no name: "".
    """
    from datasets import ClassLabel, Features

    features = features or Features.from_arrow_schema(schema)
    label = features.get(column)
    label = getattr(label, "feature", label)  # of a list, that of its items
    names = dict(enumerate(label.names)) | {-1: ""} if isinstance(label, ClassLabel) else {}
    return lambda value: "" if value is None or value != value else str(names.get(value, value))
