"""Secrets stay out of records: tokens and passwords in options, in URLs, or from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
NAME = re.compile(
    r"(?:^|[_.\-])(?:token|secret|password|passwd|passphrase|credentials?|signature|auth|authorization|bearer"
    r"|(?:api|access|secret|private|account)_?key)(?:$|[_.\-\[])",
    re.I,
)
# What tokens of well-known services look like; W&B's are 40 hexadecimal digits
SHAPE = re.compile(
    r"\b(?:hf_\w{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|wandb_v\d_\w{20,}|eyJ[\w-]{10,}\.[\w-]+\.[\w-]*)|(?<![\w./-])[0-9a-f]{40}(?![\w./-])"
)
USER = re.compile(r"(?<=://)[^/\s@]+@")
ASSIGNED = re.compile(r"([\w.\-]+)(=)([^&\s,;'\"}\])]+)")
SHORTEST = 8  # letters of a secret in the environment: shorter ones are words, too


def redacted(content: Any, name: str = "") -> Any:
    """A value, or all in a list or mapping, without secrets.

    Args:
        content: of options or a config.
        name: the option that has the value, such as `data.token`.
    """
    if isinstance(content, Mapping):
        return {key: redacted(value, str(key)) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(redacted(value, name) for value in content)
    if not isinstance(content, str):
        return content
    return HIDDEN if content and is_secret(name) else redacted_text(content)


def redacted_command(words: list[str]) -> list[str]:
    """The words of a command without secrets: neither `--data.token=x` nor `--data.token x`."""
    before = ["", *words]
    return [
        HIDDEN if option.startswith("-") and "=" not in option and is_secret(option) else redacted_text(word)
        for option, word in zip(before, words, strict=False)
    ]


def redacted_text(text: str) -> str:
    """Text without what looks like a secret: in URLs, in `token=x`, and whatever the environment calls one."""
    for value in secrets_of_environment():
        text = text.replace(value, HIDDEN)
    text = USER.sub("", text)
    text = ASSIGNED.sub(lambda found: f"{found[1]}={HIDDEN}" if is_secret(found[1]) else found[0], text)
    return SHAPE.sub(HIDDEN, text)


def is_secret(name: str) -> bool:
    """Whether an option or variable of this name holds a secret: `WANDB_API_KEY`, `--data.token`, not `key_depth`."""
    return NAME.search(name) is not None


def secrets_of_environment() -> list[str]:
    found = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST}
    return sorted(found, key=len, reverse=True)
