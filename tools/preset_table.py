"""What the presets change of the defaults in stages/*/params.py; make presets writes them."""

from typing import Any

GTZAN: dict[str, Any] = {
    "dataset": {
        "source": "hub",
        "id": "marsyas/gtzan",
        "title": "GTZAN",
        "archive": "data/genres.tar.gz",
        "config": "all",
        "originals": "data/tables/gtzan_md5.csv",
        "max_rejected": 0.002,  # jazz.00054.wav is broken: 1 of 1000
    },
    "model": {"source": "hub", "id": "ntu-spml/distilhubert"},
}
# The artist is known for 948 of GTZAN's clips; repetitions are clips cut from one recording.
GTZAN_GROUPS = {"artist": "data/tables/gtzan_artists.csv", "repetition": "data/tables/gtzan_repetitions.csv"}
ENCODING: dict[str, Any] = {"max_seconds": 30, "segments": False}
NORMALIZED: dict[str, Any] = ENCODING | {"feature_extractor": {"do_normalize": True, "return_attention_mask": True}}
RECOMMENDED: dict[str, Any] = {
    "weight_decay": 0.01,
    "window_seconds": 5,
    "attention_dropout": 0.0,
    "label_smoothing": 0.1,
}
# Name of a preset -> what it is for, and the values that differ from the defaults, by section.
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": (
        "The demo: synthetic music and a tiny HuBERT that knows such music. It runs offline on two cores in minutes.\n"
        "Its accuracy is no estimate for GTZAN; for that: cp presets/gtzan.yaml params.yaml",
        {
            "download": {
                "dataset": {"source": "synthetic"},
                "model": {"source": "folder", "path": "pretrained/hubert-tiny-music", "licence": "apache-2.0"},
            },
            # The feature encoder is a fixed filter bank: its output is computed once.
            "resample_encode": NORMALIZED | {"cache": "feature_encoder"},
            "train": {
                "threads": 2,
                "epochs": 6,
                "eval_batch_size": 16,
                "learning_rate": 5e-4,
                "head_learning_rate": 2e-3,
                "weight_decay": 0.01,
                "precision": "fp32",
                "window_seconds": 3,
                "freeze": "feature_encoder",
            },
            "evaluate": {"threads": 2, "batch_size": 16},
            "publish": {"name": "hubert-demo"},
        },
    ),
    "course": (
        "The Hugging Face audio course's fine-tuning of DistilHuBERT on GTZAN, setting by setting: 899/100 clips, no\n"
        "validation split; the test clips select the best epoch. It needs the Hub, and a GPU for fp16 (without one,\n"
        "set train.precision: auto). The exercise of the course asks for an accuracy of 0.87.",
        {
            "download": GTZAN,
            "split": {"method": "random", "test_size": 0.1, "validation_size": 0.0, "groups": GTZAN_GROUPS},
            "resample_encode": NORMALIZED,
            "train": {"precision": "fp16"},
            "publish": {"name": "distilhubert-finetuned-gtzan"},
        },
    ),
    "gtzan": (
        "GTZAN with the recommended settings: no artist and no recording in two splits, validation clips select the\n"
        "best epoch, random crops, regularisation. It needs the Hub; on two cores it trains for an hour or more.",
        {
            "download": GTZAN,
            "split": {"method": "grouped", "test_size": 0.1, "groups": GTZAN_GROUPS},
            "resample_encode": NORMALIZED | {"precision": "auto"},
            "train": RECOMMENDED,
            "publish": {"name": "distilhubert-finetuned-gtzan-grouped"},
        },
    ),
    "gtzan-fault-filtered": (
        "GTZAN with the fault-filtered split of Kereliuk, Sturm and Larsen (arXiv:1507.04761): no repetitions, no\n"
        "distorted clips, 442 to train, 197 to validate, 290 to test. It needs the Hub.",
        {
            "download": GTZAN,
            "split": {
                "method": "published",
                "test_size": 0.1,
                "published": "data/tables/gtzan_fault_filtered.csv",
                "groups": GTZAN_GROUPS,
            },
            "resample_encode": NORMALIZED | {"precision": "auto"},
            "train": RECOMMENDED,
            "publish": {"name": "distilhubert-finetuned-gtzan-fault-filtered"},
        },
    ),
    "gtzan-mert": (
        "GTZAN with MERT-v1-95M, a HuBERT that was pretrained on music (Li et al., 2023), at 24 kHz; otherwise as\n"
        "presets/gtzan.yaml. Its licence is CC BY-NC 4.0: not for commercial use. It needs the Hub and a GPU.",
        {
            "download": GTZAN
            # Its config names code of its repo, which is not run; the weights are those of a HuBERT.
            | {"model": {"source": "hub", "id": "m-a-p/MERT-v1-95M", "config": {"model_type": "hubert"}}},
            "split": {"method": "grouped", "test_size": 0.1, "groups": GTZAN_GROUPS},
            "resample_encode": NORMALIZED | {"precision": "auto"},
            "train": RECOMMENDED,
            "publish": {"name": "mert-v1-95m-finetuned-gtzan-grouped"},
        },
    ),
    "keywords": (
        "Keyword spotting: Speech Commands v0.02, 35 words of one second, with Wav2Vec2. No speaker is in two splits.\n"
        "Unpack the archive first, and set its path: see docs/other-tasks.md. On a GPU.",
        {
            "download": {
                "dataset": {
                    "source": "folder",
                    "path": "speech_commands_v0.02",
                    "licence": "cc-by-4.0",
                    "max_rejected": 0.01,
                },
                "model": {"source": "hub", "id": "facebook/wav2vec2-base"},
            },
            "split": {
                "method": "grouped",
                "test_size": 0.1,
                "name_groups": {"speaker": "([0-9a-f]+)_nohash_"},
            },
            "resample_encode": {"max_seconds": 1, "segments": False},
            "train": {
                "epochs": 5,
                "batch_size": 32,
                "gradient_accumulation_steps": 4,
                "eval_batch_size": 32,
                "learning_rate": 3e-5,
            },
            "evaluate": {"batch_size": 32},
            "publish": {"name": "wav2vec2-base-speech-commands"},
        },
    ),
    "languages": (
        "Spoken language identification: MINDS-14, 14 languages on the telephone, with Whisper's encoder, which was\n"
        "trained on many languages. It needs the Hub and a GPU.",
        {
            "download": {
                "dataset": {
                    "source": "hub",
                    "id": "PolyAI/minds14",
                    "title": "MINDS-14",
                    "config": "all",
                    "label_column": "lang_id",
                    "licence": "cc-by-4.0",
                    "max_rejected": 0.01,
                },
                "model": {"source": "hub", "id": "openai/whisper-small"},
            },
            "split": {"test_size": 0.1},
            "resample_encode": {"max_seconds": 30, "segments": False},
            "train": {"epochs": 5, "gradient_accumulation_steps": 2, "learning_rate": 3e-5},
            "publish": {"name": "whisper-small-minds14-languages"},
        },
    ),
    "environment": (
        "Environmental sound: ESC-50, 50 labels of 40 clips, with an Audio Spectrogram Transformer that was trained\n"
        "on AudioSet. Five folds; clips of one recording stay in one. It needs the Hub and a GPU.",
        {
            "download": {
                "dataset": {
                    "source": "hub",
                    "id": "ashraq/esc50",
                    "title": "ESC-50",
                    "label_column": "category",
                    "licence": "cc-by-nc-3.0",
                    "max_rejected": 0.01,
                },
                "model": {"source": "hub", "id": "MIT/ast-finetuned-audioset-10-10-0.4593"},
            },
            "split": {"method": "grouped", "folds": 5, "name_groups": {"source": r"^\d-(\d+)-"}},
            "resample_encode": {"max_seconds": 5, "segments": False},
            "train": {"learning_rate": 1e-5, "early_stopping": 3},
            "publish": {"name": "ast-esc50"},
        },
    ),
    "folder": (
        "Your clips and your checkpoint, from disk; nothing is downloaded. Set both paths (absolute, because queued\n"
        "experiments run in a copy of the project).",
        {
            "download": {
                "dataset": {"source": "folder", "path": "clips", "max_rejected": 0.02},
                "model": {"source": "folder", "path": "base-model"},
            },
            "split": {"validation_size": 0.0},
            "resample_encode": ENCODING,
            "train": {"learning_rate": 1e-4},
        },
    ),
}
