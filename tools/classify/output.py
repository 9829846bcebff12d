"""Write predictions: a table, CSV, JSON lines, Parquet, and tracks for Audacity and Raven.

What is already in a file stays, and its recordings are not classified again. A process that is killed leaves a file
that can be read: its last line may be cut off, and the next run removes it.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stages.common.errors import UserError
from tools.classify.formats import (
    Layout,
    Row,
    as_lines,
    as_track,
    csv_line,
    describe,
    drop_incomplete,
    parse,
    require_columns,
)

if TYPE_CHECKING:  # imports torch
    from tools.classify.batches import Recording

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
FORMATS = ("table", "csv", "parquet", "json", "audacity", "raven")
TRACKS = {"audacity": ".txt", "raven": ".selections.txt"}  # a file for each recording
SAVE_SECONDS = 30  # between two versions of a Parquet file, which cannot be extended


class Output(Protocol):
    """Where results go."""

    def has(self, file: str) -> bool:
        """Return whether the results of a recording are there already."""

    def write(self, recording: "Recording") -> None:
        """Add the results of a recording."""

    def close(self) -> None:
        """Write what is not written yet."""


class Screen:
    """Prints results. form: table, csv, json, or one of TRACKS."""

    def __init__(self, form: str, layout: Layout, write: Callable[[str], object]) -> None:
        self.form, self.layout, self._write = form, layout, write
        if form == "csv":
            write(csv_line(layout.columns))

    def has(self, file: str) -> bool:
        """Return False."""
        return False

    def write(self, recording: "Recording") -> None:
        """Print the results of a recording."""
        if self.form in TRACKS:
            text = as_track(self.form, self.layout, recording)
        elif self.form == "table":
            text = describe(self.layout, recording)
        else:
            text = as_lines(self.form, self.layout.rows(recording))
        self._write(text)

    def close(self) -> None:
        """Do nothing."""


class LineFile:
    """A file of CSV or JSON lines that grows with each recording."""

    def __init__(self, file: Path, form: str, layout: Layout) -> None:
        self.form, self.layout = form, layout
        head = csv_line(layout.columns) if form == "csv" else ""
        text, rows = parse(file, form, layout)
        complete = drop_incomplete(rows, layout)
        self._done = {row["file"] for row in complete}
        if (content := head + as_lines(form, complete)) != text or not file.exists():
            replace(file, lambda partial: partial.write_text(content, encoding="utf-8", newline=""))
        self._file = file.open("a", encoding="utf-8", newline="")

    def has(self, file: str) -> bool:
        """Return whether the file has this recording."""
        return file in self._done

    def write(self, recording: "Recording") -> None:
        """Add the rows of a recording."""
        self._file.write(as_lines(self.form, self.layout.rows(recording)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetFile:
    """A Parquet file, written again every SAVE_SECONDS, because one cannot be extended."""

    def __init__(self, file: Path, layout: Layout) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = ("file", "label", "file_label")
        types = [
            (name, pa.string() if name.rstrip("_0123456789") in texts else pa.float64()) for name in layout.columns
        ]
        self.file, self.layout, self._schema = file, layout, pa.schema(types)
        self._rows: list[Row] = []
        if file.exists():
            try:
                table = pq.read_table(file)
            except (pa.ArrowException, OSError) as error:
                raise UserError(
                    f"no Parquet file: {' '.join(str(error).split())}; choose another --out", file=file
                ) from None
            require_columns(file, table.column_names, layout)
            self._rows = table.to_pylist()
        self._done, self._saved = {row["file"] for row in self._rows}, time.monotonic()

    def has(self, file: str) -> bool:
        """Return whether the file has this recording."""
        return file in self._done

    def write(self, recording: "Recording") -> None:
        """Add the rows of a recording."""
        self._rows += self.layout.rows(recording)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.close()

    def close(self) -> None:
        """Write the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        replace(self.file, lambda partial: pq.write_table(table, partial))
        self._saved = time.monotonic()


class TrackFolder:
    """A folder with a label track of Audacity or a selection table of Raven for each recording."""

    def __init__(self, form: str, layout: Layout, targets: dict[str, Path]) -> None:
        self.form, self.layout, self._targets = form, layout, targets

    def has(self, file: str) -> bool:
        """Return whether the track of this recording exists."""
        return self._targets[file].exists()

    def write(self, recording: "Recording") -> None:
        """Write the track of a recording."""
        target = self._targets[recording.file]
        target.parent.mkdir(parents=True, exist_ok=True)
        text = as_track(self.form, self.layout, recording)
        replace(target, lambda partial: partial.write_text(text, encoding="utf-8", newline=""))

    def close(self) -> None:
        """Do nothing."""


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is complete or as it was."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        write(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def choose_format(form: str | None, out: Path | None) -> str:
    """Return the format: the chosen one, or that of the file's extension, or a table on the screen.

    Raises:
        UserError: the format and --out do not fit.
    """
    found = form or (SUFFIXES.get(out.suffix.lower()) if out else "table")
    if found is None:
        raise UserError(f"--out {out}: choose a --format, or one of {', '.join(SUFFIXES)}")
    if out is None and found == "parquet":
        raise UserError("--format parquet needs --out FILE")
    if out is not None and found == "table":
        raise UserError("--format table is for the screen; choose another with --out")
    return found


def open_output(
    form: str, out: Path | None, layout: Layout, names: dict[str, str], write: Callable[[str], object]
) -> Output:
    """Open the place for results.

    Args:
        names: of the recordings, by the file as it is named in the results: paths inside `out`, for tracks.
        write: prints text on the screen.

    Raises:
        UserError: `out` has other results, or two recordings would get the same file.
    """
    if form not in TRACKS:
        if out is None:
            return Screen(form, layout, write)
        out.parent.mkdir(parents=True, exist_ok=True)
        return ParquetFile(out, layout) if form == "parquet" else LineFile(out, form, layout)
    if len(names) > 1 and (out is None or (out.suffix and not out.is_dir())):
        raise UserError(f"--format {form} writes a file for each of the {len(names)} recordings: --out FOLDER")
    if out is None:
        return Screen(form, layout, write)
    if out.suffix and not out.is_dir():
        return TrackFolder(form, layout, dict.fromkeys(names, out))
    if repeated := [name for name, number in Counter(names.values()).items() if number > 1]:
        raise UserError(f"two recordings are named {repeated[0]}; classify them with different --out")
    return TrackFolder(form, layout, {file: out / f"{name}{TRACKS[form]}" for file, name in names.items()})
