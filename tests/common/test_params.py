from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from dvc.utils.serialize import load_yaml
from helpers import problems, user_error
from pydantic import Field

from stages.common.params import Number, Section, find_schema, load_params, read_file
from stages.common.params_help import describe_params


class Example(Section):
    epochs: int = Field(ge=1)
    learning_rate: Number = Field(gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    shuffle: bool = False


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
        ("train: {epochs: 2, learning_rate: 1e400}", "train.learning_rate", "got inf"),
        ("train: {epochs: 2, learning_rate: 1.0, shuffle: yes}", "train.shuffle", "must be true or false, got yes"),
    ],
)
def test_invalid_key(text: str, key: str, fact: str) -> None:
    found = problems(lambda: load(text))
    assert list(found) == [key]
    assert fact in found[key]
    assert "\n" not in found[key]


@pytest.mark.parametrize("text", ["017", "0o17", "1:30", "yes", "On", "5e-5", "1e5", "1_000", "0x1F", "~", "'1e5'"])
def test_values_are_those_that_dvc_records(text: str) -> None:
    Path("params.yaml").write_text(f"train:\n  a: {text}\n  b:\n  - {text}\n")
    recorded = load_yaml("params.yaml")
    assert repr(read_file()) == repr(recorded)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbftrain: 1", b"train: 1\r\n", b"train:\t1", b"x: &x 1\ntrain: *x"])
def test_odd_but_valid_file(content: bytes) -> None:
    Path("params.yaml").write_bytes(content)
    assert read_file()["train"] == 1


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
INVALID = {
    "cut": b"train: {",
    "list": b"- train",
    "empty": b"",
    "utf-16": "train: 1".encode("utf-16"),
    "latin-1": "train: Gr\xfcn".encode("latin-1"),
    "nul": b"train: \x00",
    "tab": b"train:\n\tepochs: 1",
    "section twice": b"train: {epochs: 1}\nsplit: 1\ntrain: {epochs: 2}",
    "key twice": b"train: {epochs: 1, epochs: 2}",
    "two documents": b"train: 1\n---\ntrain: 2",
    "unknown tag": b"train: !!python/object/apply:os.getcwd []",
    "unknown alias": b"train: *x",
    "bomb": BOMB.encode(),
    "endless": b"train: &a [*a, *a]",
    "chain": CHAIN.encode(),
    "deep": b"train: " + b"[" * 100_000 + b"]" * 100_000,
    "deep dashes": b"- " * 100_000,
}


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID)
def test_invalid_file(content: bytes) -> None:
    Path("params.yaml").write_bytes(content)
    error = user_error(lambda: load_params("train", Example))
    assert error.file == "params.yaml"
    assert "\n" not in str(error)


def test_key_that_is_listed_twice_is_named_with_its_line() -> None:
    error = user_error(lambda: load("train: {epochs: 1}\ntrain:\n  epochs: 2\n"))
    assert str(error) == 'params.yaml: not valid YAML: line 2: found duplicate key "train"'


@pytest.mark.parametrize(
    "value", ["2001-12-14", "!!set {a}", "!!binary aGk=", "9" * 30, "https://ann:secret@host/x", "https://secret@host"]
)
def test_unusable_value(value: str) -> None:
    error = user_error(lambda: load(f"train:\n  list:\n  - 1\n  - {value}\n"))
    assert error.key == "train.list.1"
    assert "secret" not in str(error)


@pytest.mark.parametrize("text", ["epochs: @", "@: 1", "precision: @", "learning_rate: [@]"])
def test_long_values_are_cut(text: str) -> None:
    long = "x" * 10**6
    for message in str(user_error(lambda: load("train: {" + text.replace("@", long) + "}"))).splitlines():
        assert len(message) < 2000


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
