import pytest

from stages.common.hub_id import read_id


@pytest.mark.parametrize("start", ["https://huggingface.co/", "http://127.0.0.1:80/", "hf.co/", "huggingface.co/"])
@pytest.mark.parametrize("kind", ["", "datasets/", "models/"])
@pytest.mark.parametrize("page", ["", "/", "/tree/main/data", "?row=3", "/viewer/all/train", "#data"])
@pytest.mark.parametrize("name", ["marsyas/gtzan", "gpt2"])
def test_id_from_address(start: str, kind: str, page: str, name: str) -> None:
    assert read_id(f" {start}{kind}{name}{page}\n") == read_id(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a/b/c",
        "marsyas/gt zan",
        "https://huggingface.co/",
        "hf.co/datasets/",
        "hf.co/spaces/a/b",
        "hf.co/datasets",
    ],
)
def test_text_without_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"id|repo"):
        read_id(text)
