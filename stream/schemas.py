"""JSON Schemas of the public records, one checked-in file a record and version; written only when asked.

`python -m stream.schemas` writes them beside itself, `--check` says whether that would change anything.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from stream.records import PUBLIC_RECORDS

FOLDER: Final = Path(__file__).parent / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, bytes]:
    """Return the content of each schema file by its name, `<record>.v<version>.json`."""
    files = {}
    for record_type in PUBLIC_RECORDS:
        name = f"{_kebab(record_type.__name__)}.v{_version(record_type)}.json"
        files[name] = (json.dumps(_schema(record_type, name), indent=2, ensure_ascii=False) + "\n").encode()
    return files


def changed_schemas(folder: Path) -> list[str]:
    """Return the names of files that `write_schemas` would write; older versions beside them are no change."""
    return [
        name
        for name, content in schemas().items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def write_schemas(folder: Path) -> list[Path]:
    """Write the schemas into the folder and return the files; those of older versions stay."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in schemas().items():
        (folder / name).write_bytes(content)
        written.append(folder / name)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the schemas; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stream.schemas", description="JSON Schemas of the records")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.check:
        changed = changed_schemas(options.folder)
        for name in changed:
            print(f"{options.folder / name} is out of date: run `python -m stream.schemas`", file=sys.stderr)
        return 1 if changed else 0
    for file in write_schemas(options.folder):
        print(file)
    return 0


def _schema(record_type: type[Struct], name: str) -> dict[str, Any]:
    (reference,), components = msgspec.json.schema_components([record_type], ref_template="#/$defs/{name}")
    title = record_type.__name__
    assert reference == {"$ref": f"#/$defs/{title}"}
    record = components.pop(title)
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": f"urn:sitrep:schema:{name.removesuffix('.json')}",
        "title": title,
    }
    schema.update((key, value) for key, value in record.items() if key != "title")
    if components:
        schema["$defs"] = components
    return schema


def _version(record_type: type[Struct]) -> int:
    for field in msgspec.structs.fields(record_type):
        if field.name == "version":
            return int(field.default)
    raise TypeError(f"{record_type.__name__} has no version: give it a field `version` with a default")


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


if __name__ == "__main__":
    raise SystemExit(main())
