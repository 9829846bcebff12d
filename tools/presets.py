"""Write the presets, their JSON schema and docs/params.md from the models in stages/*/params.py and the table below.

Also copy the pins of constraints.txt into pyproject.toml, for uv.

A preset is a complete file, so that it shows all that runs. Defaults and comments come from the models; the table has
what differs. params.yaml is written too if it is an unchanged copy of presets/demo.yaml.

Run     python -m tools.presets, or make presets
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, create_model

from stages.common.params import SECTIONS, find_schema, models_of
from stages.common.params_help import format_default, name_type
from stages.common.paths import PARAMS
from stages.common.stage import command_parser

ROOT = Path(__file__).parents[1]
LINE_LENGTH = 120
SCHEMA = "presets/params.schema.json"
# Read by editors with yaml-language-server. The path is right for a preset that was copied to params.yaml.
MODELINE = f"# yaml-language-server: $schema={SCHEMA}"

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


def write_preset(name: str) -> str:
    """Return the text of a preset."""
    header, sections = PRESETS[name]
    lines = [MODELINE, *(f"# {line}" for line in header.splitlines())]
    for section in SECTIONS:
        params = find_schema(section).model_validate(sections.get(section, {}))
        lines += [f"{section}:", *_write_model(params, 2)]
    return "\n".join(lines) + "\n"


def _write_model(params: BaseModel, indent: int) -> Iterator[str]:
    fields = type(params).model_fields
    for key in sorted(fields, key=lambda key: key != "source"):  # the source first, then in order
        field, value = fields[key], getattr(params, key)
        comment = f" # {field.description}" if field.description else ""
        if isinstance(value, BaseModel):
            yield f"{' ' * indent}{key}:{comment}"
            yield from _write_model(value, indent + 2)
            continue
        line = f"{' ' * indent}{key}: {_dump(value)}"
        if len(line) > LINE_LENGTH - 20:
            yield f"{' ' * indent}{key}:{comment}"
            yield from (f"{' ' * (indent + 2)}{name}: {_dump(item)}" for name, item in value.items())
        elif len(line + comment) > LINE_LENGTH:
            yield f"{' ' * indent}{comment.strip()}"
            yield line
        else:
            yield line + comment


def _dump(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and value >= 1:
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()


def write_schema() -> str:
    """Return the JSON schema of params.yaml."""
    fields: Any = {section: (find_schema(section), ...) for section in SECTIONS}
    schema = create_model("params.yaml", **fields).model_json_schema()
    return json.dumps(schema | {"additionalProperties": False}, indent=2) + "\n"


def write_docs() -> str:
    """Return docs/params.md: a table of keys for each section."""
    lines = [
        "# Keys of params.yaml",
        "",
        "Written by `make presets` from `stages/*/params.py`. `python -m stages.train --help` prints those of a stage.",
    ]
    for section in SECTIONS:
        lines += _document(section, find_schema(section))
    return "\n".join(lines) + "\n"


def _document(name: str, model: type[BaseModel]) -> Iterator[str]:
    nested = [(key, inner) for key, field in model.model_fields.items() for inner in models_of(field.annotation)]
    yield from ("", f"## {name}", "", _escape((model.__doc__ or "").strip()))
    if len(nested) < len(model.model_fields):
        yield from ("", "| key | type | default | |", "|---|---|---|---|")
    for key, field in model.model_fields.items():
        if key != "source" and not (models_of(field.annotation) and field.is_required()):
            default = "required" if field.is_required() else f"`{format_default(field.get_default())}`"
            comment = _escape(field.description or "")
            yield f"| `{key}` | {name_type(field.annotation)} | {default} | {comment} |"
    for key, inner in nested:
        tag = inner.model_fields.get("source")
        source = f", source: {get_args(tag.annotation)[0]}" if tag else ""
        yield from _document(f"{name}.{key}{source}", inner)


def write_pyproject() -> str:
    """Return pyproject.toml with the pins of constraints.txt at its end: `uv sync` reads no constraints file."""
    text, start, _ = (ROOT / "pyproject.toml").read_text().partition("constraint-dependencies = [\n")
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    listed = textwrap.fill(", ".join(f'"{pin}"' for pin in pins), LINE_LENGTH - 2, break_on_hyphens=False)
    return f"{text}{start}{textwrap.indent(listed, '  ')},\n]\n"


def _escape(text: str) -> str:
    return text.replace("<", "\\<")  # or Markdown reads it as HTML


def main() -> None:
    """Write all files."""
    command_parser("tools.presets", __doc__).parse_args()
    copied = (ROOT / PARAMS).read_text() == (ROOT / "presets/demo.yaml").read_text()
    texts = {f"presets/{name}.yaml": write_preset(name) for name in PRESETS}
    texts |= {SCHEMA: write_schema(), "docs/params.md": write_docs(), "pyproject.toml": write_pyproject()}
    if copied:
        texts[str(PARAMS)] = texts["presets/demo.yaml"]
    for path, text in texts.items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
