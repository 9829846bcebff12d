"""Classify recordings of any length: predictions for each file and, with --window, for each window of it.

Without --window, a recording is classified as a complete clip of at most the max_seconds of the training, as `evaluate`
does it without windows. A longer recording is cut into such clips, to its end, and their probabilities are averaged.

Run     python -m tools.classify recordings/
        python -m tools.classify concert.mp3 --window 3 --format audacity --out concert.txt
        python -m tools.classify recordings/ --model you/name --out predictions.csv   # again: skips what it has
"""

import os
import sys
from argparse import Namespace
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from stages.common.errors import UserError, printable
from stages.common.extensions import EXTENSIONS, UNDECODABLE
from stages.common.paths import PUBLISHED
from stages.common.stage import command_parser, run_command
from tools.classify.find import ONNX, find_model
from tools.classify.formats import Layout
from tools.classify.output import FORMATS, choose_format, open_output

if TYPE_CHECKING:  # import torch
    from tools.classify.audio import Windows
    from tools.classify.model import Classifier


def list_recordings(paths: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """List files, and the audio files of folders and their folders.

    Returns:
        The files, with their paths inside the folder that was given, and what cannot be read, with the reason.

    Raises:
        UserError: a folder has no audio file.
    """
    from stages.download.dataset.folders import list_files
    from stages.download.dataset.selection import is_hidden

    names: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for path in map(Path, paths):
        if path.is_dir():
            listing = list_files(path)
            unreadable |= {f"{path / name}": reason for name, reason in listing.rejected}
            found = [
                name
                for name in listing.files
                if Path(name).suffix.lower() in EXTENSIONS | UNDECODABLE and not any(map(is_hidden, Path(name).parts))
            ]
            if not found:
                raise UserError("has no audio file; a file with another extension can be named itself", file=path)
            names |= {str(path / name): name for name in found}
        elif not path.is_file():
            unreadable[str(path)] = "no such file" if not path.exists() else "not a file"
        else:
            names[str(path)] = path.name
    for name in [name for name in names if name.encode("utf-8", "ignore") != os.fsencode(name)]:
        unreadable[name] = "its name is not UTF-8; rename it"
        del names[name]
    return names, unreadable


def plan_windows(classifier: "Classifier", window: float | None, hop: float | None) -> "Windows":
    """Return how to cut recordings. window, hop: seconds.

    Raises:
        UserError: a window is longer than the clips of the training, or too short for the model, or the hop is longer
            than the window.
    """
    from tools.classify.audio import Windows

    rate, most = classifier.extractor.sampling_rate, classifier.max_seconds
    seconds = most if window is None else window
    if seconds > most:
        raise UserError(f"--window {seconds:g}: the clips that the model learnt from have at most {most:g} s")
    length, step = round(seconds * rate), round((seconds if hop is None else hop) * rate)
    if length < classifier.shortest:
        raise UserError(f"--window {seconds:g}: the model needs at least {classifier.shortest / rate:.3g} s")
    if not 0 < step <= length:
        raise UserError(f"--hop {hop:g}: choose more than 0 and at most --window, or parts would be left out")
    used = classifier.find_used_seconds(seconds)
    if used < seconds:
        print(
            f"note: the model uses only the first {used:g} s of each window of {seconds:g} s, as in evaluate; "
            f"--window {used:g} uses all of a recording",
            file=sys.stderr,
        )
    return Windows(rate, round(most * rate), length, step, classifier.shortest)


class Progress:
    """A progress bar on stderr, in files, with the seconds of audio that were classified."""

    def __init__(self, files: int) -> None:
        self._bar = tqdm(total=files, desc="classify", unit="file")
        self._seconds = 0.0

    def add_audio(self, seconds: float) -> None:
        """Count the seconds of a window."""
        self._seconds += seconds
        self._bar.set_postfix_str(f"{self._seconds / 60:.1f} min of audio", refresh=False)

    def add_file(self) -> None:
        """Count a file."""
        self._bar.update()

    def skip(self, files: int, out: Path | None) -> None:
        """Count files that have results."""
        self._bar.update(files)
        if files:
            note = (
                f"{out}: has the results of {files} recordings already; for another model, window or threshold, use "
                "another --out"
            )
            self._bar.write(note, file=sys.stderr)

    def print(self, text: str) -> None:
        """Print on stdout, above the bar."""
        with self._bar.external_write_mode() if sys.stdout.isatty() else nullcontext():
            sys.stdout.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def classify_files(options: Namespace, names: dict[str, str]) -> dict[str, str]:
    """Classify recordings, and write their predictions.

    Args:
        names: as `list_recordings` returns them.

    Returns:
        The reasons of the recordings that cannot be classified.
    """
    model = find_model(options.model)
    if model.suffix == ONNX:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no torch
    else:
        import stages.common.device  # noqa: F401  # before anything else imports torch

    # isort: split
    from transformers.utils import logging

    from tools.classify.batches import classify
    from tools.classify.model import load_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    classifier = load_model(model, options.precision, options.threads)
    windows = plan_windows(classifier, options.window, options.hop)
    top = min(options.top, len(classifier.labels))
    answering = classifier.answering
    if options.threshold is not None:
        answering = answering._replace(threshold=options.threshold)
    layout = Layout(classifier.labels, top, options.window is not None, windows.sampling_rate / 2, answering)
    progress = Progress(len(names))
    unreadable, cut = {}, []
    with closing(progress), closing(open_output(options.format, options.out, layout, names, progress.print)) as output:
        remaining = [file for file in names if not output.has(file)]
        progress.skip(len(names) - len(remaining), options.out)
        for recording in classify(remaining, classifier, windows, options.batch_size, progress.add_audio):
            if recording.reason:
                unreadable[recording.file] = recording.reason
            else:
                output.write(recording)
                cut.append(recording.left_out)
            progress.add_file()
    report_cut([seconds for seconds in cut if seconds], classifier.max_seconds)
    return unreadable


def report_cut(left_out: list[float], max_seconds: float) -> None:
    """Print how many recordings were cut, and by how much. left_out: seconds of each."""
    if left_out:
        print(
            f"note: {len(left_out)} recordings are a little longer than {max_seconds:g} s; what lies beyond, at most "
            f"{max(left_out):.2f} s, was left out, as in evaluate",
            file=sys.stderr,
        )


def read_options() -> Namespace:
    """Read the command line."""
    parser = command_parser("tools.classify", __doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="FILE_OR_FOLDER", help="recordings, and folders that are searched for them")
    add("--model", default=str(PUBLISHED), help="folder, ONNX file, or id on the Hub; default: %(default)s")
    add("--top", type=int, default=3, metavar="N", help="number of labels in a row; default: %(default)s")
    add("--window", type=float, metavar="SECONDS", help="length of the windows, each of which gets a prediction")
    add(
        "--hop", type=float, metavar="SECONDS", help="from the start of a window to that of the next; default: --window"
    )
    add("--format", choices=FORMATS, help="default: that of --out's extension, or a table on the screen")
    add("--out", type=Path, help="file; for audacity and raven a folder, or for a single recording a file")
    add("--batch-size", type=int, default=8, metavar="N", help="windows in a batch; default: %(default)s")
    add("--threads", type=int, metavar="N", help="CPU threads of the model; default: all")
    add("--precision", choices=("fp32", "bf16", "auto"), default="fp32", help="auto: bf16 if the device has it")
    add(
        "--threshold",
        type=float,
        metavar="P",
        help='the label is "none of these" unless one is more probable than P (0 to 1); default: that of the model',
    )
    options = parser.parse_args()
    for name in ("top", "batch_size", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        parser.error("--threshold must be from 0 to 1")
    if options.hop is not None and options.window is None:
        parser.error("--hop needs --window")
    return options


def main() -> None:
    """Classify recordings; exit status 1 if one cannot be classified."""
    options = read_options()
    options.format = choose_format(options.format, options.out)
    names, unreadable = list_recordings(options.paths)
    if names:
        unreadable |= classify_files(options, names)
    for file, reason in unreadable.items():
        print(f"error: {printable(f'{file}: {reason}')}", file=sys.stderr)
    if unreadable:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
