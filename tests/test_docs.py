"""The links of the documentation lead somewhere, and the modules and targets that it names exist."""

import re
from pathlib import Path

import pytest
from helpers import ROOT, git

TEMPLATE = "stages/publish/model_card.md"  # its links are for the model repository
PAGES = sorted({*git(ROOT, "ls-files", "*.md").split()} - {TEMPLATE})
REMOVED = {"tools.gather"}  # which the changelog names


def find_anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    file = ROOT / page
    for link in re.findall(r"\]\((?!https?:|mailto:)(\S+?)\)", file.read_text()):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        if anchor:
            assert anchor in find_anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    text, targets = (ROOT / page).read_text(), re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for module in set(re.findall(r"python -m ((?:stages|tools|benchmarks)[\w.]*)", text)) - REMOVED:
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target
