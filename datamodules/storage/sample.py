"""The files of one sample, and the numbers that its json gives."""

from __future__ import annotations

from typing import Any

from ..core.errors import BadSampleError, reason
from .files import parse_json


class Sample(dict[str, bytes]):
    """The bytes of the files of one sample, by extension. What is missing is a BadSampleError that names the sample.

    Args:
        key: name of the sample.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def __missing__(self, extension: str) -> bytes:
        raise BadSampleError(f"{self.key} has no {extension}")

    def metadata(self) -> dict[str, Any]:
        """The content of the json. Raises BadSampleError if it is not an object."""
        try:
            content = parse_json(self["json"])
        except ValueError as error:
            raise BadSampleError(f"{self.key}.json is not JSON ({reason(error)})") from error
        if not isinstance(content, dict):
            raise BadSampleError(f"{self.key}.json is not a JSON object")
        return content

    def label(self, classes: int) -> int:
        """The `label` in the json, a class from 0 to `classes` - 1. Raises BadSampleError for anything else."""
        return self._classes([self.metadata().get("label")], "label", classes)[0]

    def labels(self, classes: int) -> list[int]:
        """The list `labels` in the json, of classes from 0 to `classes` - 1. Raises BadSampleError for anything else."""
        return self._classes(self.metadata().get("labels"), "labels", classes)

    def _classes(self, found: Any, name: str, classes: int) -> list[int]:
        if isinstance(found, list) and all(type(number) is int and 0 <= number < classes for number in found):
            return found
        raise BadSampleError(f"{self.key}.json lacks {name} from 0 to {classes - 1}")

    def seconds(self) -> float:
        """The `seconds` in the json, at least 0. Raises BadSampleError for anything else."""
        found = self.metadata().get("seconds")
        if isinstance(found, (int, float)) and not isinstance(found, bool) and 0 <= found < 1e9:
            return float(found)
        raise BadSampleError(f"{self.key}.json lacks its length in seconds")
