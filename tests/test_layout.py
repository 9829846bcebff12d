"""The layout of the code: which module may import which, and what dvc.yaml must list."""

import ast
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest
import yaml
from helpers import ALONE, ROOT, git

STAGES = ["check", "download", "split", "resample_encode", "train", "evaluate", "publish"]
MODULES = sorted(path for path in (ROOT / "stages").rglob("*.py") if path.name != "__init__.py")
# The modules that a stage of dvc.yaml runs. To check params.yaml, stages/download/params.py also imports the schemas of
# the other half, and common/params.py those of all stages. They only decide whether the file is accepted; no output
# depends on them, so they are no dependencies. The same holds for the modules that check and describe params.yaml,
# check that inputs do not change, rename outputs, record the environment, and handle signals and errors of the system.
CHECKS = ("model_types", "params_check", "params_errors", "params_help")
NAMES = (*CHECKS, "environment_record", "inputs", "interrupts", "outputs", "system_errors")
NO_OUTPUT = {ROOT / f"stages/common/{name}.py" for name in NAMES}
ENTRIES = {
    "check": ["stages/check"],
    "download@dataset": ["stages/download/__main__.py", "stages/download/dataset"],
    "download@model": ["stages/download/__main__.py", "stages/download/model"],
    "split": ["stages/split"],
    "resample_encode": ["stages/resample_encode"],
    "train": ["stages/train"],
    "evaluate_baselines": ["stages/evaluate/baselines.py"],
    "evaluate": ["stages/evaluate"],
    "publish": ["stages/publish"],
}


@cache
def imports_of(module: Path) -> frozenset[Path]:
    """Return the project's modules that a module imports, at its top or in a function, but not for types alone."""
    found: set[Path] = set()
    pending: list[ast.AST] = [ast.parse(module.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        pending += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        paths = (ROOT / (name.replace(".", "/") + ".py") for name in names)
        found |= {path for path in paths if path.is_file()}
    return frozenset(found)


def reachable(modules: set[Path]) -> set[Path]:
    """Return modules and all that they import, directly or through others."""
    found: set[Path] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending += imports_of(module)
    return found


def place(module: Path) -> str:
    """Return the folder of stages/, or of the top, that a module is in."""
    parts = module.relative_to(ROOT).parts
    return parts[1] if parts[0] == "stages" else parts[0]


def modules_in(entries: list[str]) -> set[Path]:
    return {module for module in MODULES for entry in entries if module.is_relative_to(ROOT / entry)}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(module: Path) -> None:
    allowed = {place(module), "common"}
    assert {place(imported) for imported in imports_of(module)} <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if place(m) == "common"], ids=lambda path: path.stem)
def test_common_modules_serve_two_stages(module: Path) -> None:
    users = [stage for stage in STAGES if module in reachable(modules_in([f"stages/{stage}"]))]
    assert len(users) >= 2, f"move it to stages/{users[0]}"


@pytest.mark.parametrize("stage", ENTRIES)
def test_dvc_lists_the_code(stage: str) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    name, _, key = stage.partition("@")
    entries = ENTRIES[stage]
    used = {module for module in reachable(modules_in(entries)) if place(module) == "common"}
    if key:
        # The halves share one list: what either uses.
        other = [entry for half, both in ENTRIES.items() for entry in both if half.startswith(f"{name}@")]
        used = {module for module in reachable(modules_in(other)) if place(module) == "common"}
    expected = {*entries, *(str(module.relative_to(ROOT)) for module in used - NO_OUTPUT)}
    if name == "download":
        expected.add("stages/download/params.py")
    deps = stages[name].get("do", stages[name])["deps"]
    listed = {dep.replace("${key}", key) for dep in deps if dep.startswith("stages/")}
    lines = "\n".join(f"      - {path}" for path in sorted(expected))
    assert listed == expected, f"paste into dvc.yaml, stage {name}:\n{lines}"


PACKAGES = sorted(file for folder in ("stages", "tools", "benchmarks") for file in (ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_packages_have_a_purpose_only(package: Path) -> None:
    tree = ast.parse(package.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize(
    "module",
    [*MODULES, *(ROOT / "tools").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_modules_stay_small(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 250 or module.name == "synthetic_music.py"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 45, node.name


def test_grouped_tests_exist() -> None:
    assert [name for name in ALONE if not (ROOT / name).is_file()] == []


@pytest.mark.slow
def test_source_distribution_holds_all_of_git(tmp_path: Path) -> None:
    for name in git(ROOT, "ls-files").splitlines():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "copy" / name)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "copy", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "copy" / done.stdout.splitlines()[-1]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(git(ROOT, "ls-files").splitlines()) <= packed
