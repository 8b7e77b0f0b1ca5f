"""Claims are read from text and judged by scores."""

import numpy as np
import pytest

from datamodules import UserError
from src.stats.claims import judge, parse_claim, read_claims
from src.stats.intervals import Estimate, of_table


def difference(mean: float, seeds: int = 5) -> Estimate:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.003, (seeds, 1)) + generator.normal(0, 0.05, (seeds, 200))
    return of_table(mean + noise - noise.mean())


def word(text: str, mean: float, seeds: int = 5) -> str:
    (found,) = judge([parse_claim(text)], "top1", ["a", "b"], lambda *_: difference(mean, seeds))
    return found.word


@pytest.mark.parametrize(
    ("text", "mean", "said"),
    [
        ("a > b", 0.05, "shown"),
        ("a > b", -0.05, "refuted"),
        ("a > b", 0.002, "not separable"),
        ("a > b on loss", -0.05, "shown"),  # lower is better
        ("a > b on loss", 0.05, "refuted"),
        ("a = b within 2 points", 0.002, "shown"),
        ("a = b within 0.02", 0.002, "shown"),
        ("a = b within 2 points on top1", 0.05, "refuted"),
        ("a = b within 2 points", -0.05, "refuted"),
        ("a = b within 2 points", 0.018, "not separable"),
        ("a = b within 0.1 points", 0.0, "not separable"),
    ],
)
def test_a_claim_is_shown_refuted_or_not_separable(text, mean, said):
    assert word(text, mean) == said


def test_the_smaller_sign_names_the_better_variant_second():
    claim = parse_claim("worse <  better on map")
    assert (claim.first, claim.second, claim.metric) == ("better", "worse", "map")


def test_one_seed_shows_nothing():
    assert word("a > b", 0.5, seeds=1) == "not separable"
    assert word("a = b within 50 points", 0.0, seeds=1) == "not separable"


def test_claims_are_corrected_together():
    """One claim at p = 0.03 is shown; beside another like it, it is not."""
    found = difference(0.0)
    means = np.linspace(0.004, 0.02, 200)
    mean = next(m for m in means if Estimate(m, found.seeds, found.clusters, found.squares).p_differs() < 0.03)
    near = Estimate(mean, found.seeds, found.clusters, found.squares)
    claims = [parse_claim("a > b"), parse_claim("a > c")]
    alone, both = (judge(some, "top1", ["a", "b", "c"], lambda *_: near) for some in (claims[:1], claims))
    assert [judged.word for judged in alone] == ["shown"]
    assert [judged.word for judged in both] == ["not separable"] * 2


def test_what_cannot_be_judged_says_why():
    claims = [parse_claim("a > gone"), parse_claim("a > b")]
    found = judge(claims, "top1", ["a", "b"], lambda *_: None)
    assert [judged.line for judged in found] == [
        "a > gone: not judged (no comparable runs of gone)",
        "a > b: not judged (no common seeds with top1)",
    ]


@pytest.mark.parametrize(
    "text", ["a", "a > a", "a >b", "a > b within 1 point", "a = b", "a ~ b", "a > b on", "a > b c", "x" * 400]
)
def test_other_text_is_no_claim(text):
    with pytest.raises(UserError, match="write `A > B`"):
        parse_claim(text)


def test_metrics_and_their_units_are_checked():
    for text, said in (("a > b on nothing", "no metric is called"), ("a = b within 1 point on loss", "has no points")):
        with pytest.raises(UserError, match=said):
            judge([parse_claim(text)], "top1", ["a", "b"], lambda *_: difference(0.1))


def test_claims_are_read_from_a_file_or_a_list(tmp_path):
    (tmp_path / "claims.txt").write_text("# before the test\na > b\n\na = b within 1 point on top1 # close\n")
    wanted = ["a > b", "a = b within 1 point on top1"]
    assert [claim.text for claim in read_claims(str(tmp_path / "claims.txt"))] == wanted
    assert [claim.text for claim in read_claims("; ".join(wanted))] == wanted
    for given, said in ((str(tmp_path / "gone"), "nor a file"), (str(tmp_path), "nor a file")):
        with pytest.raises(UserError, match=said):
            read_claims(given)
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UserError, match="0 claims"):
        read_claims(str(tmp_path / "empty"))
