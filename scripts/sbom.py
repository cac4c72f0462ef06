"""Write what a wheel of headrace carries, as CycloneDX JSON: python scripts/sbom.py WHEEL > sbom.json."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = re.compile(
    r"^\| `(?P<name>[\w.]+)` \| (?P<what>[^|]+) \| (?P<author>[^|]+) \| [^|]+ \| (?P<license>[^|]+) \|$"
)


def bill(wheel: Path) -> dict[str, object]:
    """Return the bill of materials of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = Parser().parsestr(archive.read(place).decode())
        built = next(
            (archive.read(name) for name in names if re.search(r"_native/extension\..*\.(so|pyd)$", name)), b""
        )
        digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names if name.endswith(".jpg")}
    reference = f"pkg:pypi/headrace@{about['Version']}"
    inside = [*_libraries(built), *_photographs(digests)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": reference,
                "name": "headrace",
                "version": about["Version"],
                "licenses": [{"license": {"id": about["License-Expression"]}}],
                "purl": reference,
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
            }
        },
        "components": [*inside, *_required(about.get_all("Requires-Dist") or [])],
        "dependencies": [{"ref": reference, "dependsOn": [part["bom-ref"] for part in inside]}],
    }


def _libraries(built: bytes) -> list[dict[str, object]]:
    """Return what is linked into the native extension, by what it says itself."""
    if not built:
        return []
    found = []
    version = re.search(rb"libjpeg-turbo version (\d[\d.]*)", built)
    if version and b"libjpeg.so" not in built:
        number = version.group(1).decode()
        found.append(
            {
                "type": "library",
                "bom-ref": f"pkg:generic/libjpeg-turbo@{number}",
                "name": "libjpeg-turbo",
                "version": number,
                "purl": f"pkg:generic/libjpeg-turbo@{number}",
                "licenses": [{"license": {"id": name}} for name in ("IJG", "BSD-3-Clause", "Zlib")],
            }
        )
    nanobind = {"type": "library", "bom-ref": "pkg:pypi/nanobind", "name": "nanobind", "purl": "pkg:pypi/nanobind"}
    return [*found, nanobind | {"licenses": [{"license": {"id": "BSD-3-Clause"}}]}]


def _photographs(digests: dict[str, str]) -> list[dict[str, object]]:
    notes = (ROOT / "src" / "headrace" / "demo" / "README.md").read_text(encoding="utf-8")
    known = {row["name"]: row for row in map(PHOTOGRAPHS.match, notes.splitlines()) if row}
    found: list[dict[str, object]] = []
    for path, digest in sorted(digests.items()):
        row = known[path.rpartition("/")[2]]
        free = row["license"].startswith("CC0")
        found.append(
            {
                "type": "data",
                "bom-ref": path,
                "name": path,
                "description": row["what"].strip(),
                "author": row["author"].strip(),
                "licenses": [{"license": {"id": "CC0-1.0"} if free else {"name": "public domain"}}],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )
    return found


def _required(lines: list[str]) -> list[dict[str, object]]:
    """Return what the base install brings along; extras are chosen by the user."""
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}",
            "name": name,
            "purl": f"pkg:pypi/{name}",
            "scope": "required",
        }
        for name in names
    ]


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1])), indent=1))
