import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.spelling import fold, show


@given(st.text())
def test_fold_twice(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(("text", "shown"), [("a b ", "'a b '"), ("Cafe\u0301", "'Cafe\u0301' ('Cafe\\u0301')")])
def test_show(text: str, shown: str) -> None:
    assert show(text) == shown
