"""LambdaResNets: the paper's counts, shapes, and equality with a ResNet where nothing is lambda."""

from itertools import takewhile

import pytest
import timm
import torch

from datamodules import DataSpec, ModalitySpec, UserError
from src.backbones import LambdaLayer, LambdaResNet
from tests.support import ROOT


def spec(height: int, width: int | None = None) -> DataSpec:
    width = width or height
    return DataSpec({"image": ModalitySpec(3, 10, height * width, (height, width), 2)}, "single_label", ("a", "b"))


def millions(**options) -> float:
    """Parameters with a head of 1000 classes."""
    with torch.device("meta"):
        model = LambdaResNet(spec(224), **options)
    return (sum(p.numel() for p in model.parameters()) + 2049 * 1000) / 1e6


def table_rows(*columns: str) -> list[list[str]]:
    """The rows of the table in docs/lambda_counts.md that begins with these columns."""
    lines = (ROOT / "docs" / "lambda_counts.md").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(f"| {' | '.join(columns)} |"))
    rows = takewhile(lambda line: line.startswith("|"), lines[first + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_counts_in_the_documentation_are_ours():
    for *numbers, _, ours, _ in table_rows("k", "h", "u", "r"):
        sizes = dict(zip(("key_depth", "heads", "intra_depth", "scope"), map(int, numbers), strict=True))
        assert millions(**sizes) == pytest.approx(float(ours), abs=0.006), sizes
    for stages, _, ours, _ in table_rows("stages"):
        assert millions(stages=stages) == pytest.approx(float(ours), abs=0.006), stages
    for depth, lambdas, *counts in table_rows("depth", "lambda layers")[
        :3
    ]:  # the others are built likewise, in more time
        family = {"depth": int(depth), "stages": "CCLC", "c4_lambdas": int(lambdas)}
        found = [millions(**family, squeeze_excite=True), millions(**family)]
        found.append(millions(depth=int(depth), stages="CCCC", squeeze_excite=True))
        assert found == pytest.approx([float(count) for count in counts], abs=0.006), depth


@pytest.mark.parametrize(
    ("stages", "published"),
    # the paper gives 15.4 for CCLL, which its own CCCL (18.8) less one stage's difference (3.27) does not bear out
    [
        ("CCCC", 25.6),
        ("LCCC", 25.5),
        ("LLCC", 25.0),
        ("LLLC", 21.7),
        ("LLLL", 15.0),
        ("CLLL", 15.1),
        ("CCLL", 15.6),
        ("CCCL", 18.8),
    ],
)
def test_parameters_of_the_hybrids_are_the_papers(stages, published):
    assert abs(millions(stages=stages) - published) < 0.051


def test_squeeze_and_excite_adds_the_papers_parameters():
    assert abs(millions(stages="CCCC", squeeze_excite=True) - 28.1) < 0.051


def test_convolutions_alone_equal_timms_resnet():
    ours, theirs = LambdaResNet(spec(64), stages="CCCC").eval(), timm.create_model("resnet50", num_classes=0).eval()
    values = [v for k, v in theirs.state_dict().items()]
    ours.load_state_dict(dict(zip(ours.state_dict(), reorder(theirs), strict=True)))
    assert len(values) == len(ours.state_dict())
    inputs = spec(64).example_inputs(2)
    picture = inputs["image"].values.transpose(1, 2).unflatten(2, (64, 64))
    with torch.no_grad():
        found = ours.feature_maps(inputs)
        wanted = theirs.forward_intermediates(picture, indices=4, intermediates_only=True)
    for of_ours, of_theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(of_ours, of_theirs, rtol=1e-4, atol=1e-5)


def reorder(theirs: torch.nn.Module) -> list[torch.Tensor]:
    """timm's tensors in the order of ours: stem, then of each block the three convolutions with their norms."""
    state = theirs.state_dict()
    tensors = [v for k, v in state.items() if k.startswith(("conv1", "bn1"))]
    for stage in range(1, 5):
        for block in range(len(getattr(theirs, f"layer{stage}"))):
            stem = f"layer{stage}.{block}."
            for part in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample"):
                tensors += [v for k, v in state.items() if k.startswith(stem + part)]
    return tensors


def test_family_members_spread_their_lambdas_over_the_third_stage():
    with torch.device("meta"):
        model = LambdaResNet(spec(224), depth=152, stages="CCLC", c4_lambdas=6, squeeze_excite=True)
    found = [any(isinstance(m, LambdaLayer) for m in block.modules()) for block in model.stages[2]]
    assert [i for i, lambda_ in enumerate(found) if lambda_] == [5, 11, 17, 23, 29, 35]
    assert sum(isinstance(m, LambdaLayer) for m in model.modules()) == 6


@pytest.mark.parametrize(
    "options", [{}, {"scope": None}, {"stages": "CCLL"}, {"intra_depth": 2}, {"share_embeddings": True}]
)
def test_a_picture_that_is_not_square_gives_maps_at_four_strides_and_gradients_to_all(options):
    torch.manual_seed(0)
    data = spec(64, 40)
    model = LambdaResNet(data, depth=26, **options)
    for block in (b for stage in model.stages for b in stage):
        torch.nn.init.ones_(block.widen[-1].weight)
    maps = model.feature_maps(data.example_inputs(2))
    assert [m.shape[1:] for m in maps] == [(256, 16, 10), (512, 8, 5), (1024, 4, 3), (2048, 2, 2)]
    sum(m.square().mean() for m in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_shared_embeddings_are_one_table_per_stage():
    model = LambdaResNet(spec(64), share_embeddings=True)
    tables = {id(m.embeddings) for m in model.modules() if isinstance(m, LambdaLayer)}
    assert len(tables) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 51}, "51"),
        ({"stages": "CCX"}, "CCX"),
        ({"stages": "CCCC", "c4_lambdas": 1}, "c4_lambdas"),
        ({"c4_lambdas": 9}, "9"),
    ],
)
def test_wrong_options_raise_user_error(options, named):
    with pytest.raises(UserError, match=named):
        LambdaResNet(spec(64), **options)


@pytest.mark.parametrize("options", [{}, {"positions": True}])
def test_the_first_layer_sees_what_receptive_field_says(options):
    data = spec(64)
    model = LambdaResNet(data, stages="CCCC", **options).eval()
    inputs = data.example_inputs(1)
    inputs["image"].values.requires_grad_()
    channels = inputs["image"].concat() if options else inputs["image"].values
    model.stem[0](channels.transpose(1, 2).unflatten(2, (64, 64)))[0, :, 16, 16].sum().backward()
    assert inputs["image"].values.grad.any(-1).sum() == model.receptive_field()
