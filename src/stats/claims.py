"""Claims: comparisons that are written down before the test split is read, and judged by its scores.

    perceiver > transformer              better in the main metric
    perceiver > transformer on loss      better, so lower, in another metric
    a = b within 1 point on top1         nearly the same: a margin in points (hundredths of a fraction), or in the metric's
    unit

A claim is shown, refuted or not separable. "Better" is shown or refuted where the difference is significant; "nearly the
same" is shown where the true difference lies inside the margin (two one-sided tests; Schuirmann 1987), refuted where it lies
outside. The claims of a table are corrected together by Holm. Significance is two-sided at 5 %.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules import UserError

from ..metrics.registry import Metric, metric_named
from .intervals import LEVEL, Estimate
from .verdicts import holm

CLAIM = re.compile(
    r"(?P<first>\S+) (?P<sign>[><=]) (?P<second>\S+)(?: within (?P<margin>\d+(?:\.\d+)?)(?P<points> points?)?)?"
    r"(?: on (?P<metric>\S+))?"
)
LONGEST = 300
MOST = 200
Word = Literal["shown", "refuted", "not separable", "not judged"]


@dataclass(frozen=True)
class Claim:
    """A comparison of two variants.

    Args:
        text: as it was written.
        first: the variant that is said to be better, or one of two alike.
        second: the other variant.
        margin: how far two alike may be apart, in the metric's unit; None for "better".
        metric: its name; None for the main metric.
        points: whether the margin was written in points.
    """

    text: str
    first: str
    second: str
    margin: float | None = None
    metric: str | None = None
    points: bool = False


@dataclass(frozen=True)
class Judged:
    """A claim with what the scores say of it.

    Args:
        claim: the claim.
        word: shown, refuted, not separable, or not judged.
        metric: that it was judged on.
        p: corrected for all claims of the table.
        difference: of the first variant from the second; None where it was not judged.
        why: it was not judged.
    """

    claim: Claim
    word: Word
    metric: str = ""
    p: float = 1.0
    difference: Estimate | None = None
    why: str = ""

    @property
    def line(self) -> str:
        """`perceiver > transformer: shown (top1 +0.0210, 95 %: +0.0110 to +0.0310)`."""
        found = self.difference
        if found is None:
            return f"{self.claim.text}: {self.word} ({self.why})"
        limits = "one seed" if found.seeds < 2 else f"95 %: {found.low:+.4f} to {found.high:+.4f}"
        return f"{self.claim.text}: {self.word} ({self.metric} {found.mean:+.4f}, {limits})"


def parse_claim(text: str) -> Claim:
    """A claim from its text.

    Raises:
        UserError: it is none.
    """
    found = CLAIM.fullmatch(" ".join(str(text).split())) if len(str(text)) <= LONGEST else None
    if found is None or (found["sign"] == "=") != (found["margin"] is not None) or found["first"] == found["second"]:
        raise UserError(
            f"claim {str(text)[:LONGEST]!r}: write `A > B`, or `A = B within 1 point`, with ` on METRIC` after it if need be"
        )
    first, second = (found["first"], found["second"])[:: -1 if found["sign"] == "<" else 1]
    margin = None if found["margin"] is None else float(found["margin"]) / (100 if found["points"] else 1)
    return Claim(found[0], first, second, margin, found["metric"], found["points"] is not None)


def read_claims(given: str) -> list[Claim]:
    """Claims from a file with one on each line (empty lines and `# comments` do not count), or from a list `A > B; C > D`.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    path = Path(given)
    if re.search(r" [><=] ", given):
        lines = given.split(";")
    else:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--claims {given}: neither a claim such as `A > B` nor a file that can be read") from error
    texts = [text for line in lines if (text := line.partition("#")[0].strip())]
    if not 0 < len(texts) <= MOST:
        raise UserError(f"--claims {given}: {len(texts)} claims: give 1 to {MOST}, one on each line")
    return [parse_claim(text) for text in texts]


def judge(
    claims: Sequence[Claim],
    main: str,
    known: Sequence[str],
    difference: Callable[[str, str, str], Estimate | None],
) -> list[Judged]:
    """What the scores say of claims.

    Args:
        claims: all claims of the table.
        main: the metric of claims that name none.
        known: the variants that have scores.
        difference: (first, second, metric) to first - second; None where they have no seeds in common.

    Raises:
        UserError: a claim names a metric that is not registered, or points of one that is no fraction.
    """
    open_claims: list[tuple[Claim, Metric, Estimate, Word, float]] = []
    found: dict[int, Judged] = {}
    places = []
    for place, claim in enumerate(claims):
        metric = metric_named(claim.metric or main)
        if claim.points and metric.unit != "fraction":
            raise UserError(f"claim {claim.text!r}: {metric.name} has no points: give the margin in {metric.unit}")
        missing = next((name for name in (claim.first, claim.second) if name not in known), None)
        estimate = None if missing else difference(claim.first, claim.second, metric.name)
        if estimate is None:
            why = f"no comparable runs of {missing}" if missing else f"no common seeds with {metric.name}"
            found[place] = Judged(claim, "not judged", metric.name, why=why)
        else:
            open_claims.append((claim, metric, estimate, *evidence(claim, estimate, metric.higher_is_better)))
            places.append(place)
    corrected = holm([p for *_, p in open_claims])
    for place, (claim, metric, estimate, word, _), p in zip(places, open_claims, corrected, strict=True):
        enough = p <= 1 - LEVEL
        found[place] = Judged(claim, word if enough else "not separable", metric.name, float(p), estimate)
    return [found[place] for place in range(len(claims))]


def evidence(claim: Claim, estimate: Estimate, higher_is_better: bool) -> tuple[Word, float]:
    """What a claim would be called if it is significant, and its two-sided p-value."""
    if estimate.seeds < 2:  # says nothing of another training
        return "not separable", 1.0
    if claim.margin is None:
        good = estimate if higher_is_better else -estimate
        return ("shown" if good.mean > 0 else "refuted"), estimate.p_differs()
    inside = 2 * max((-estimate).p_above(-claim.margin), estimate.p_above(-claim.margin))
    outside = 2 * min(estimate.p_above(claim.margin), (-estimate).p_above(claim.margin))
    return ("shown", min(1.0, inside)) if inside < outside else ("refuted", min(1.0, outside))
