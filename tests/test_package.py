"""The built wheel installs and its console script runs from another folder, with all that ships inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and installed apart from the source tree (its dependencies come from this environment)."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)], check=True, timeout=100
    )
    [wheel] = folder.glob("sitrep-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True, timeout=60)
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed console script in `folder`."""
    return subprocess.run(
        [sys.executable, str(site / "bin" / "sitrep"), *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_console_script_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """`sitrep --version` answers from the wheel, not from the source tree."""
    answer = run(installed, tmp_path, "--version")
    assert (answer.returncode, answer.stdout.split()[0]) == (0, "sitrep"), answer.stderr


def test_wheel_ships_checkpoint_samples_and_schemas(installed: Path) -> None:
    """What the commands need is inside."""
    assert (installed / "model" / "checkpoints" / "compact" / "model.safetensors").is_file()
    assert (installed / "deploy" / "samples" / "records.jsonl").is_file()
    assert list((installed / "stream" / "schemas").glob("finding.v*.json"))


def test_explain_runs_with_the_shipped_checkpoint(installed: Path, tmp_path: Path) -> None:
    """The wheel alone explains a post."""
    answer = run(installed, tmp_path, "explain", "Bridge on Route 9 collapsed, cars in the river", "--json")
    assert answer.returncode == 0, answer.stderr
    assert "infrastructure_and_utility_damage" in answer.stdout
