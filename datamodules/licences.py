"""Which licences let samples be shown to everybody, by their SPDX names."""

from __future__ import annotations

OPEN = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "ISC",
        "MIT",
        "MPL-2.0",
        "OFL-1.1",
        "Unicode-3.0",
        "Unlicense",
    }
)


def is_open(licence: str | None) -> bool:
    """Whether a licence, or each of several that are joined by AND, is on this list."""
    return licence is not None and all(part in OPEN for part in licence.split(" AND "))
