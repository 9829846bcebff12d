from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from helpers import problems, user_error
from pydantic import Field

from stages.common.params import Number, Section, find_schema, load_params
from stages.common.params_help import describe_params


class Example(Section):
    epochs: int = Field(ge=1)
    learning_rate: Number = Field(gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"


class Here(Section):
    source: Literal["here"]
    path: str


class There(Section):
    source: Literal["there"]
    id: str


UNION: Any = Annotated[Here | There, Field(discriminator="source")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, schema: Any = Example, section: str = "train") -> Any:
    Path("params.yaml").write_text(text)
    return load_params(section, schema)


@pytest.mark.parametrize("text", ["5e-5", "5.0e-5", "0.00005"])
def test_learning_rate_with_exponent(text: str) -> None:
    assert load(f"train: {{epochs: 2, learning_rate: {text}}}") == Example(epochs=2, learning_rate=5e-5)


@pytest.mark.parametrize(
    ("text", "key", "fact"),
    [
        ("train: {epochs: 2, learning_rte: 1.0}", "train.learning_rte", "did you mean learning_rate?"),
        ("train: {epochs: 2, learning_rate: 1.0, x: 1}", "train.x", "unknown key; remove it"),
        ("train: {epochs: two, learning_rate: 1.0}", "train.epochs", "got 'two'"),
        ("train: {epochs: true, learning_rate: 1.0}", "train.epochs", "got True"),
        ("train: {epochs: 0, learning_rate: 1.0}", "train.epochs", "greater than or equal to 1, got 0"),
        ("train: {epochs: 2, learning_rate: fast}", "train.learning_rate", "got 'fast'"),
        ("train: {epochs: 2, learning_rate: .nan}", "train.learning_rate", "got nan"),
        ("train: {epochs: 2}", "train.learning_rate", "missing"),
        ("train: {epochs: 2, learning_rate: 1, precision: fp8}", "train.precision", "'fp32' or 'bf16'"),
        ("evaluate: {}", "train", "missing"),
        ("train: 7", "train", "got 7"),
    ],
)
def test_invalid_key(text: str, key: str, fact: str) -> None:
    found = problems(lambda: load(text))
    assert list(found) == [key]
    assert fact in found[key]
    assert "\n" not in found[key]


@pytest.mark.parametrize("content", [b"train: {", b"- train", b"", b"\xff\xfe"])
def test_invalid_file(content: bytes) -> None:
    Path("params.yaml").write_bytes(content)
    assert user_error(lambda: load_params("train", Example)).file == "params.yaml"


def test_missing_file() -> None:
    assert "top folder" in str(user_error(lambda: load_params("train", Example)))


def test_source_is_no_part_of_the_key() -> None:
    found = problems(lambda: load("download: {dataset: {source: here, id: x}}", UNION, "download.dataset"))
    assert set(found) == {"download.dataset.path", "download.dataset.id"}


@pytest.mark.parametrize("source", ["hre", "null", "3"])
def test_unknown_source(source: str) -> None:
    found = problems(lambda: load(f"download: {{dataset: {{source: {source}}}}}", UNION, "download.dataset"))
    assert "must be here or there" in found["download.dataset.source"]


@pytest.mark.parametrize("section", ["download", "split", "resample_encode", "train", "evaluate", "publish"])
def test_help_describes_all_keys(section: str) -> None:
    text = describe_params(section)
    for key, field in find_schema(section).model_fields.items():
        assert f"  {key}: " in text
        assert field.description is None or field.description in text
    assert "Annotated" not in text
