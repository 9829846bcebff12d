"""Convert every clip to model input: mono, resampled, cut, and through the base model's feature extractor.

Reads   params.yaml: resample_encode; data/raw/ (clips.csv and the files it lists); models/base/
Writes  data/encoded/: a data set for `datasets.load_from_disk` with clip, label and, in float16, the model's input or
        the output of a part of the model; the feature extractor's config; encoding.json with these params
Run     python -m stages.resample_encode
"""

import os

from stages.common.params import load_params
from stages.common.paths import BASE, CLIPS, ENCODED, RAW
from stages.common.stage import atomic_output, require_files, run_stage
from stages.resample_encode.params import ResampleEncodeParams


def main() -> None:
    """Encode all clips on threads, in the order of clips.csv."""
    from stages.common.device import find_device  # before anything else imports torch

    # isort: split
    import numpy as np
    from tqdm import tqdm

    from stages.common.architectures import receptive_field
    from stages.common.classifier import load_config
    from stages.common.encoded_clips import CACHE_COLUMNS, SHARD, write_encoded_clips
    from stages.common.tables import read_table, require_intact
    from stages.common.threads import map_in_threads
    from stages.resample_encode.features import encode_clip, load_feature_extractor

    params = load_params("resample_encode", ResampleEncodeParams)
    require_files(CLIPS, BASE / "config.json")
    extractor = load_feature_extractor(BASE, params.feature_extractor)
    config = load_config(BASE)
    clips = read_table(CLIPS)
    cores = os.cpu_count() or 1
    # Two are enough to keep a GPU busy, and each needs memory there for the activations of a clip.
    workers = params.workers or (min(2, cores) if find_device() != "cpu" and params.cache != "input" else cores)
    min_samples = receptive_field(config)
    run_part = None
    if params.cache != "input":
        from stages.resample_encode.model_part import load_part

        run_part = load_part(BASE, config, params.cache, params.precision)

    def encode(clip: tuple[str, str]) -> np.ndarray:
        path, sha256 = clip
        require_intact(RAW / path, sha256)
        return encode_clip(RAW / path, extractor, params.max_seconds, min_samples, run_part)

    encoded = map_in_threads(encode, zip(clips["path"], clips["sha256"]), workers)
    arrays = tqdm(encoded, "encode", len(clips), unit="clip")
    column = CACHE_COLUMNS.get(params.cache, extractor.model_input_names[0])
    labels = sorted(set(clips["label"]))
    settings = params.model_dump(exclude={"workers"})
    with atomic_output(ENCODED) as folder:
        write_encoded_clips(folder, column, labels, zip(clips["clip"], clips["label"], arrays), settings)
        extractor.save_pretrained(folder)
    megabytes = (ENCODED / SHARD).stat().st_size / 1e6
    print(f"{ENCODED}: {len(clips)} clips at {extractor.sampling_rate} Hz, {megabytes:.0f} MB")


if __name__ == "__main__":
    run_stage(main)
