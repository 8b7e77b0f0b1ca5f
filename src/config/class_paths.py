"""Class paths of older versions, as they are called now."""

from __future__ import annotations

from typing import Any

RENAMED = {"src.batch_norm.SettleBatchNorms": "src.training.SettleBatchNorms"}  # version 0.1


def with_current_class_paths(content: Any) -> Any:
    """A config, or a part of one, whose `class_path`s are today's."""
    if isinstance(content, list):
        return [with_current_class_paths(value) for value in content]
    if not isinstance(content, dict):
        return content
    return {
        key: RENAMED.get(value, value)
        if key == "class_path" and isinstance(value, str)
        else with_current_class_paths(value)
        for key, value in content.items()
    }
