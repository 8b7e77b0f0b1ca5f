"""Scenes composed as a COCO folder: boxes and masks are exact, equal settings make equal scenes."""

from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from datamodules import UserError
from datamodules.detection import compose_scenes, prepare_composed
from datamodules.detection.annotations import annotation_file
from datamodules.detection.composed import Composed
from tests.support.coco import targets

SCENES = (40, 6, 20)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Composed:
    data = Composed(str(tmp_path_factory.mktemp("composed")), scenes=SCENES, side=64, bands=2, batch_size=8)
    data.prepare_data()
    return data


def test_composed_scenes_have_the_splits_and_sizes_asked_for(scenes):
    assert tuple(len(scenes.split(name).keys) for name in ("train", "val", "test")) == SCENES
    counts = [len(target["boxes"]) for name in ("val", "test") for target in targets(scenes, name).values()]
    assert 1 < max(counts) <= 8


def test_composed_boxes_fit_their_masks_and_no_pixel_belongs_to_two_objects(scenes):
    for target in targets(scenes, "test").values():
        assert not (target["masks"].sum(dim=0) > 1).any()
        for box, mask, area in zip(target["boxes"], target["masks"], target["area"], strict=True):
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert mask.sum() == area


def test_no_object_of_a_scene_is_hidden_by_more_than_half_and_some_scenes_are_empty():
    image = np.full((1, 8, 8), 200, np.uint8)  # a filled square: its whole area is that of its box
    counts = []
    for seed in range(80):
        _, things = compose_scenes.compose_scene(image, 64, np.random.default_rng(seed))
        counts.append(len(things))
        for _, seen in things:
            assert seen.sum() >= 0.5 * seen.any(axis=0).sum() * seen.any(axis=1).sum() - 1e-9
    assert min(counts) == 0
    assert max(counts) > 4


def test_composed_scenes_are_the_same_every_time(scenes, tmp_path):
    again = Composed(str(tmp_path), scenes=SCENES, side=64, bands=2)
    again.prepare_data()
    assert again.fingerprint() == scenes.fingerprint()


def test_composed_is_made_again_only_where_it_is_unfinished(scenes, tmp_path):
    data = Composed(str(tmp_path), scenes=(3, 2, 2), side=32, bands=1)
    data.prepare_data()
    made = annotation_file(tmp_path, "test").stat().st_mtime_ns
    data.prepare_data()
    assert annotation_file(tmp_path, "test").stat().st_mtime_ns == made
    annotation_file(tmp_path, "test").unlink()
    data.prepare_data()
    data.setup("test")
    with pytest.raises(UserError, match="was composed with"):
        Composed(str(tmp_path), scenes=(4, 2, 2), side=32, bands=1).setup("fit")


def test_garments_need_fashion_mnist(tmp_path):
    with pytest.raises(UserError, match="prepare fashion_mnist"):
        Composed(str(tmp_path / "out"), of="garments", source=str(tmp_path / "none"), bands=1).prepare_data()


def test_prepare_composed_draws_a_picture(tmp_path):
    options = Namespace(out=tmp_path, of="digits", scenes=(2, 1, 5), side=48, source="")
    assert "8 scenes composed of digits" in prepare_composed.prepare(options)
    assert Image.open(tmp_path / "examples.png").width > 4 * 48
