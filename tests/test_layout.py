"""Who may import whom, and who may read the environment, read off the source files."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("stream", "model", "workers", "deploy")
TOP_FOLDERS = {*PACKAGES, "tests", ".ci"}

FORBIDDEN = {
    "stream": {"torch", "transformers", "faust", "model", "workers", "deploy", "tests"},
    "model": {"stream", "workers", "deploy", "tests", "aiokafka", "redis", "faust", "prometheus_client"},
    "workers": {"deploy", "tests"},
    "deploy": {"tests"},
}
READS_ENVIRONMENT = {
    "workers/setting_sources.py",
    "deploy/child_process.py",  # hands it on to the children it starts
}


def files(*packages: str) -> list[Path]:
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each import, wherever it stands."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: import by the full name"
            yield node.lineno, node.module or ""


def imported_modules(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything imported, with each name of a `from` import as if it were a module."""
    yield from imports(file)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def environment_reads(file: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [name]
        if {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"} & set(names):
            yield node.lineno  # type: ignore[attr-defined]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package: str) -> None:
    assert files(package)
    wrong = [
        f"{name_of(file)}:{line} imports {name}"
        for file in files(package)
        for line, name in imports(file)
        if name.partition(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_only_the_settings_read_the_environment() -> None:
    """A name `environ` that is a parameter is not the environment, but is kept to the same files."""
    wrong = [
        f"{name_of(file)}:{line}"
        for file in files(*PACKAGES)
        if name_of(file) not in READS_ENVIRONMENT
        for line in environment_reads(file)
    ]
    assert wrong == []


def test_embedded_broker_is_imported_by_deploy_and_tests_only() -> None:
    wrong = [
        f"{name_of(file)}:{line}"
        for file in files("stream", "model", "workers")
        for line, name in imports(file)
        if name.partition(".")[0] == "noida_db"
    ]
    assert wrong == []


def test_packages_do_not_import_one_another_in_a_circle() -> None:
    allowed = {"stream": set[str](), "model": set[str](), "workers": {"stream", "model"}, "deploy": set(PACKAGES)}
    for package in PACKAGES:
        used = {name.partition(".")[0] for file in files(package) for _, name in imports(file)}
        assert (used & set(PACKAGES)) - {package} <= allowed[package]


def test_top_level_folders_are_the_known_ones() -> None:
    """Each has one job; a new one is a decision, not an accident."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert folders <= TOP_FOLDERS


def test_what_serves_imports_nothing_of_what_trains_or_measures() -> None:
    """Whoever reads how a post is decided need not read how that was learnt."""
    modules = {name_of(file).removesuffix(".py").replace("/", "."): file for file in files("model")}
    serving, reached = ["model.loading"], set[str]()
    while serving:
        module = serving.pop()
        if module in modules and module not in reached:
            reached.add(module)
            serving += [name for _, name in imported_modules(modules[module])]
    assert "model.joint.classifier" in reached
    assert [name for name in sorted(reached) if name.split(".")[1] in {"data", "evaluation", "training"}] == []


def test_what_reads_and_measures_imports_nothing_of_what_trains() -> None:
    wrong = [
        f"{name_of(file)}:{line} imports {name}"
        for package, above in (("data", {"evaluation", "training", "joint"}), ("evaluation", {"training"}))
        for file in files(f"model/{package}")
        for line, name in imported_modules(file)
        if name.startswith("model.") and name.split(".")[1] in above
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_a_package_with_a_docstring_in_every_module(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    bare = [name_of(file) for file in files(package) if not ast.get_docstring(ast.parse(file.read_text("utf-8")))]
    assert [name for name in bare if not name.endswith("__init__.py")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_named_for_nothing_in_particular(package: str) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    assert [name_of(file) for file in files(package) if file.stem in vague] == []
