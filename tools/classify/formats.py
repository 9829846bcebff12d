"""Turn predictions into rows and lines: a table, CSV, JSON lines, label tracks of Audacity, tables of Raven."""

import csv
import io
import json
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.common.answers import NONE, Answering, is_answered
from stages.common.errors import UserError
from stages.common.names import show
from stages.common.tables import quote_formula, unquote_formula

if TYPE_CHECKING:  # imports torch
    from tools.classify.batches import Recording

RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
Row = dict[str, Any]


class Layout(NamedTuple):
    """What the results hold.

    labels: in the order of ids. top: number of the most probable labels in a row.
    windows: whether each window is a row, or each recording.
    high_hz: half of the sampling rate, the highest frequency that the model gets.
    answering: what counts as an answer.
    """

    labels: list[str]
    top: int
    windows: bool
    high_hz: float
    answering: Answering = Answering()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        pairs = [("label", "probability")] + [(f"label_{n}", f"probability_{n}") for n in range(2, self.top + 1)]
        best = [name for pair in pairs for name in pair]
        if not self.windows:
            return ["file", "seconds", *best]
        return ["file", "seconds", "start", "end", *best, "file_label", "file_probability"]

    def rank(self, probabilities: np.ndarray) -> list[tuple[str, float | None]]:
        """Return the most probable labels, with their probabilities.

        If none is an answer, NONE comes first, with the probability of the background, or None without one.
        """
        order = np.argsort(-probabilities, kind="stable")
        ranked = [(self.labels[i], round(float(probabilities[i]), 6)) for i in order]
        if is_answered(probabilities, self.labels, self.answering):
            return [*ranked[: self.top]]
        background = self.answering.background
        others = [pair for pair in ranked if pair[0] != background]
        return [(NONE, dict(ranked).get(background)), *others][: self.top]

    def rows(self, recording: "Recording") -> list[Row]:
        """Return the rows of a recording. The last one ends at its `seconds`, so a cut-off result can be noticed."""
        seconds = round(recording.times[-1][1], 3)
        answer = self.rank(recording.mean)
        rows: list[list[Any]] = [[recording.file, seconds, *chain(*answer)]]
        if self.windows:
            rows = [
                [recording.file, seconds, round(start, 3), round(end, 3), *chain(*best), *answer[0]]
                for (start, end), best in zip(recording.times, map(self.rank, recording.probabilities))
            ]
        return [dict(zip(self.columns, row)) for row in rows]

    def join(self, recording: "Recording") -> list[tuple[float, float, str, float | None]]:
        """Join consecutive windows of one label: start and end in seconds, label, mean probability (None for NONE)."""
        joined: list[tuple[float, float, str, list[float]]] = []
        for (start, end), probabilities in zip(recording.times, recording.probabilities):
            label, probability = self.rank(probabilities)[0]
            if joined and joined[-1][2] == label:
                joined[-1] = (joined[-1][0], end, label, [*joined[-1][3], probability or 0.0])
            else:
                joined.append((start, end, label, [probability or 0.0]))
        return [
            (start, end, label, None if label == NONE else float(np.mean(values)))
            for start, end, label, values in joined
        ]


def csv_line(values: list[Any]) -> str:
    """Return a line of CSV; a text that a spreadsheet would run as a formula gets an apostrophe."""
    texts = [quote_formula(value) if isinstance(value, str) else value for value in values]
    line = io.StringIO()
    # The csv module does not quote a carriage return, at which a reader would end the line.
    breaks = any("\r" in str(text) for text in texts)
    writer = csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if breaks else csv.QUOTE_MINIMAL)
    writer.writerow(texts)
    return line.getvalue()


def as_lines(form: str, rows: list[Row]) -> str:
    """Return rows as lines of CSV or JSON."""
    if form == "csv":
        return "".join(csv_line(list(row.values())) for row in rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parse(file: Path, form: str, layout: Layout) -> tuple[str, list[Row]]:
    """Return the text of a file of CSV or JSON lines, and its rows without a last line that was cut off.

    Raises:
        UserError: it is no such file, or has other columns.
    """
    content = file.read_bytes() if file.exists() else b""
    try:
        text = content.decode("utf-8")
        complete = text[: text.rfind("\n") + 1]
        if form == "csv":
            head, *lines = list(csv.reader(io.StringIO(complete, newline=""))) or [layout.columns]
            if lines and len(lines[-1]) < len(head):  # cut off after a line feed in the name of a file
                del lines[-1]
            rows = [dict(zip(head, map(unquote_formula, line), strict=True)) for line in lines]
        else:
            rows = [json.loads(line) for line in complete.split("\n")[:-1]]
            head = list(rows[0]) if rows else layout.columns
        require_columns(file, head, layout)
        if any(list(row) != layout.columns for row in rows):
            raise ValueError("a line has other columns")
    except (ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot be continued: {reason}; choose another --out", file=file) from None
    return text, rows


def require_columns(file: Path, columns: list[str], layout: Layout) -> None:
    """Raise UserError if results were written with other options."""
    if columns != layout.columns:
        raise UserError(
            "its columns are of another --top, or with or without --window; choose another --out", file=file
        )


def drop_incomplete(rows: list[Row], layout: Layout) -> list[Row]:
    """Drop the rows of a recording whose last window is missing, because the process was killed."""
    if not layout.windows:
        return rows
    recordings = [list(group) for _, group in groupby(rows, key=lambda row: row["file"])]
    return [row for rows in recordings if float(rows[-1]["end"]) == float(rows[-1]["seconds"]) for row in rows]


def describe(layout: Layout, recording: "Recording") -> str:
    """Return the predictions of a recording for people; with windows, also what is when."""

    def percent(pairs: list[tuple[str, float | None]]) -> str:
        return ", ".join(show(label) if value is None else f"{show(label)} {value:.1%}" for label, value in pairs)

    lines = [f"{show(recording.file)}: {percent(layout.rank(recording.mean))}"]
    if layout.windows:
        lines += [
            f"  {start:9.2f} s to {end:9.2f} s  {percent([(label, probability)])}"
            for start, end, label, probability in layout.join(recording)
        ]
    return "\n".join(lines) + "\n"


def as_track(form: str, layout: Layout, recording: "Recording") -> str:
    """Return a label track of Audacity or a selection table of Raven; consecutive windows of one label are joined.

    Windows without an answer are left out.

    Audacity: start, end (seconds) and text in each line, separated by tabs. Raven: the same with a header.
    """
    joined = [
        (start, end, show(label), value) for start, end, label, value in layout.join(recording) if value is not None
    ]
    if form == "audacity":
        return "".join(f"{start:.6f}\t{end:.6f}\t{label} {value:.2f}\n" for start, end, label, value in joined)
    name = show(Path(recording.file).name)
    lines = [[*RAVEN, "Begin File", "Label", "Probability"]]
    for number, (start, end, label, value) in enumerate(joined, 1):
        place = [str(number), "Spectrogram 1", "1", f"{start:.6f}", f"{end:.6f}", "0", f"{layout.high_hz:g}"]
        lines.append([*place, name, label, f"{value:.4f}"])
    return "".join("\t".join(line) + "\n" for line in lines)
