"""Points in the plane, as icons are: drawn flat and upright, with maps, and damaged like clouds in space."""

from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from datamodules import Furniture, Icons
from src.backbones import Perceiver
from src.pictures.attention import draw_attention
from src.pictures.receptive_fields import draw_importance
from src.pictures.samples import draw_samples, load_samples
from src.pictures.views import Outline, PointCloud
from src.stress.corruptions import cut
from src.tasks import Classification

SMALL = partial(Perceiver, num_latents=4, latent_dim=16, cross_attends=1, self_attends_per_block=1, self_heads=2)


@pytest.fixture(scope="module")
def drawn(tiny):
    data = Icons(**tiny.options("Icons"), encodings=("pixels", "outline", "path"), points=64)
    task = Classification(data.spec, SMALL).eval()
    return task, load_samples(task, data, "test", 3)


def test_outlines_get_all_pictures_beside_the_other_encodings(drawn, tmp_path):
    task, samples = drawn
    draw_samples(samples, tmp_path / "samples.png", "icons")
    written = draw_attention(task.backbone, samples, tmp_path, "icons") + draw_importance(
        task, samples, tmp_path, "icons"
    )
    assert {f"{kind}_outline.png" for kind in ("attention", "importance")} <= {path.name for path in written}
    assert all(path.stat().st_size > 2000 for path in written)


def test_an_outline_is_flat_and_its_top_is_at_the_top(drawn):
    view = drawn[1].views["outline"]
    assert isinstance(view, Outline)
    axes = Figure().subplots()
    view.raw = np.float32([[[-1, -1], [1, -1], [1, 1]]])  # y down: the last point is at the bottom right
    view.draw(axes, 0)
    shown = axes.transData.transform(axes.collections[0].get_offsets())
    assert shown[2, 1] < shown[0, 1]
    assert shown[2, 0] > shown[0, 0]
    assert axes.get_aspect() == 1


def test_clouds_in_space_stay_in_space(tiny):
    data = Furniture(**tiny.options("Furniture"))
    view = load_samples(Classification(data.spec, SMALL), data, "test", 1).views["points"]
    assert type(view) is PointCloud
    assert view.projection == "3d"


def test_a_side_of_an_outline_is_cut_off_along_a_line(drawn):
    array = drawn[1].batch.inputs["outline"]
    found = cut(array, torch.tensor([[1.0, 0.0, 5.0]]).expand(len(array.values), 3), 0.25)
    assert found.mask is not None
    for x, kept in zip(array.values[..., 0], found.mask, strict=True):
        assert kept.sum() == 48
        assert x[kept].max() <= x[~kept].min()
