import pytest

from stages.download.dataset.label_cells import list_labels, list_names, read_label


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("low", ["low"]),
        ("", [""]),
        ("a, b", ["a, b"]),
        ('["low"]', ["low"]),
        ("['low']", ["low"]),
        ("[low]", ["low"]),
        ("('low',)", ["low"]),
        ("{'low'}", ["low"]),
        ("[3]", ["3"]),
        ('["children, playing"]', ["children, playing"]),
        ("['children, playing']", ["children, playing"]),
        ('["low", "low", null, ""]', ["low"]),
        ('[["low"], []]', ["low"]),
        ("[]", []),
        ('[""]', []),
        ('["low", "high"]', ["low", "high"]),
        ("['low' 'high']", ["low", "high"]),
        ("[low, high]", ["low", "high"]),
        ("[0 1]", ["0", "1"]),
        ("{'low': 0.9}", ["{'low': 0.9}"]),
        ("{'low', 'high'}", ["low", "high"]),
        ("[None]", []),
        ("[nan, 'low']", ["low"]),
        ("['low', None]", ["low"]),
        ("[NaN]", []),
        ("[Hip Hop]", ["Hip Hop"]),
        ("[rock & roll, pop]", ["rock & roll", "pop"]),
        ('["[Live, 1999]"]', ["[Live, 1999]"]),
        ("('Round Midnight)", ["('Round Midnight)"]),
        ("(What's the Story)", ["(What's the Story)"]),
        ("{Deep House}", ["{Deep House}"]),
        ('["it\'s", "low"]', ["it's", "low"]),
        ("[" * 90_000 + "]", []),
        ("('a', 'b')", ["a", "b"]),
        ("[('a',)]", ["a"]),
        ("[['a'], ['b']]", ["a", "b"]),
        ("['[Live]']", ["[Live]"]),
        ("[a] b [c]", ["[a] b [c]"]),
        ("[it's] b [that's]", ["[it's] b [that's]"]),
        ("[x (y)]", ["x (y)"]),
        ("('Til Dawn')", ["('Til Dawn')"]),
        ("('Til Dawn', live)", ["('Til Dawn', live)"]),
        ('["a "]', ["a"]),
    ],
)
def test_list_labels(cell: str, labels: list[str]) -> None:
    assert list_labels(cell) == labels
    assert read_label(cell) == (cell if len(labels) > 1 else "".join(labels))


def test_long_lists_of_names_are_cut() -> None:
    assert list_names(["a", ""]) == "a, ''"
    assert list_names(list("abcdefghijkl")) == "a, b, c, d, e, f, g, h, i, j, ..."
