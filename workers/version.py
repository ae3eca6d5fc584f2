"""The version of Sitrep that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


def version() -> str:
    """Return the version, or `unknown` when Sitrep runs uninstalled."""
    try:
        return installed_version("sitrep")
    except PackageNotFoundError:
        return "unknown"
