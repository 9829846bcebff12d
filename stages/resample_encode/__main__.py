"""Convert every clip to model input: mono, resampled, cut, and through the base model's feature extractor.

Reads   params.yaml: resample_encode; data/raw/ (clips.csv and the files it lists); models/base/
Writes  data/encoded/: a data set for `datasets.load_from_disk` with clip, label, the start of a segment if clips are
        cut into them and, in float16, the model's input or the output of a part of the model; the feature extractor's
        config; encoding.json with these params and, if there is one, the label of the background
        .dvc/tmp/encoded/: complete shards to go on from, if the stage is killed; removed at its end
Run     python -m stages.resample_encode
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import stages.common.interrupts  # noqa: F401  # first, so that Ctrl-C is handled while the rest is imported
from stages.common.outputs import atomic_outputs, require_files
from stages.common.params import load_params
from stages.common.paths import BASE, CLIPS, DATASET_SOURCE, ENCODED, RAW
from stages.common.stage import run_stage
from stages.resample_encode.params import ResampleEncodeParams

if TYPE_CHECKING:
    from datasets import Features
    from pandas import DataFrame, Series

    from stages.resample_encode.encoder import ClipRow, Encoder

MAX_LISTED = 10  # silent clips that are named


def warn_of_silence(clips: list[str], max_seconds: float, sampling_rate: int) -> None:
    """Name the clips, if any, of which the model gets only silence: their sound comes later, or is too high."""
    if not clips:
        return
    names = ", ".join(clips[:MAX_LISTED])
    where = f"in the first {max_seconds} s at {sampling_rate} Hz"
    print(f"warning: silent {where}: {len(clips)} clips ({names}); remove them, or raise resample_encode.max_seconds")


def warn_of_long_clips(seconds: "Series", max_seconds: float) -> None:
    """Print how many clips are cut, and how much of them is not used. seconds: lengths of the clips."""
    from stages.common.segments import SLACK

    cut = seconds[seconds > (1 + SLACK) * max_seconds] - max_seconds
    if len(cut):
        print(
            f"warning: {len(cut)} clips are longer than {max_seconds} s; their last {cut.sum() / 60:.1f} min in total "
            "are not used. To use them, set resample_encode.segments: true"
        )


def report_segments(table: "DataFrame", counts: list[int], silent: list[str]) -> None:
    """Print how many segments the labels have, because those with many count more in training, and silent segments.

    Args:
        table: clips.csv. counts: segments of each of its rows. silent: clips with the starts of their segments.
    """
    labels = table.assign(segments=counts).groupby("label")["segments"].sum().sort_values()
    few, many = labels.index[0], labels.index[-1]
    print(f"segments of a label: {labels.iloc[0]} ({few}) to {labels.iloc[-1]} ({many})")
    if silent:
        print(f"warning: {len(silent)} silent segments ({', '.join(silent[:MAX_LISTED])}); cut the silence out")


def encode(
    encoder: "Encoder", columns: "Features", rows: "list[ClipRow]", shards: dict[str, slice], folder: Path
) -> list[str]:
    """Encode clips on threads or, with RAY_ADDRESS, on a Ray cluster; go on from the shards that `folder` has.

    Args:
        columns: as `describe_features` returns them. shards: as `cut_shards` returns them. folder: for the shards.

    Returns:
        The clips, or segments, of which the model gets only silence.
    """
    from threadpoolctl import threadpool_limits

    from stages.common.tables import require_intact
    from stages.common.threads import map_in_threads
    from stages.resample_encode import kept_shards
    from stages.resample_encode.encoder import count_workers

    complete = kept_shards.find_complete(folder, shards)
    used = [row for name in complete for row in rows[shards[name]]]
    for _ in map_in_threads(lambda row: require_intact(RAW / row.path, row.sha256), used):
        pass  # as if they were encoded again
    if used:
        print(f"goes on from {len(used)} of {len(rows)} clips, from the shards in {folder}", flush=True)
    remaining = {name: part for name, part in shards.items() if name not in complete}
    partial = kept_shards.prepare(folder)
    if address := os.environ.get("RAY_ADDRESS"):
        from stages.resample_encode import ray_shards

        written = ray_shards.write_shards(address, partial, columns, rows, remaining, encoder.params)
    else:
        written = encoder.write_shards(partial, columns, rows, remaining, count_workers(encoder.params))
    with threadpool_limits(1, "blas"):  # or each thread would multiply matrices in one further thread for each core
        for name, silent in written:
            kept_shards.keep(folder, name, silent)
            complete[name] = silent
    return sorted(clip for silent in complete.values() for clip in silent)


def main() -> None:
    """Encode all clips in the order of clips.csv."""
    from stages.common.device import find_device  # noqa: F401  # before anything else imports torch

    # isort: split
    from stages.common.encoded_clips import cut_shards, describe_features, write_description
    from stages.common.kept_work import open_run
    from stages.common.tables import read_json, read_table
    from stages.resample_encode import kept_shards
    from stages.resample_encode.encoder import ClipRow, Encoder

    params = load_params("resample_encode", ResampleEncodeParams)
    require_files(CLIPS, DATASET_SOURCE, BASE / "config.json")
    table, background = read_table(CLIPS), read_json(DATASET_SOURCE).get("background")
    rows = [ClipRow(*row) for row in table[list(ClipRow._fields)].astype({"seconds": float}).itertuples(index=False)]
    encoder = Encoder(params)
    # The shape of one clip's features describes those of all, so that shards need not wait for each other.
    columns = describe_features(encoder.column, sorted(set(table["label"])), next(encoder.encode(rows[0])))
    encoder.silent.clear()
    counts = encoder.count_rows(rows)
    shards = cut_shards(counts)
    run = kept_shards.describe_run(params, os.environ.get("RAY_ADDRESS"))
    with open_run(kept_shards.SHARDS, run) as kept:
        with atomic_outputs(ENCODED) as [folder]:
            folder.mkdir()
            silent = encode(encoder, columns, rows, shards, kept)
            kept_shards.place(kept, shards, folder)
            settings = params.settings() | ({"background": background} if background else {})
            write_description(folder, columns, shards, settings)
            encoder.extractor.save_pretrained(folder)
        kept_shards.remove(kept)
    if params.segments:
        report_segments(table, counts, silent)
    else:
        warn_of_long_clips(table["seconds"].astype(float), params.max_seconds)
        warn_of_silence(silent, params.max_seconds, encoder.extractor.sampling_rate)
    megabytes = sum((ENCODED / name).stat().st_size for name in shards) / 1e6
    print(f"{ENCODED}: {len(rows)} clips at {encoder.extractor.sampling_rate} Hz, {megabytes:.0f} MB")


if __name__ == "__main__":
    run_stage(main)
