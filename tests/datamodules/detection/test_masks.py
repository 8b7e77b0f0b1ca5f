"""Masks as runs and polygons."""

import numpy as np
import pytest

from datamodules.detection.masks import decode_rle, encode_rle, fill_polygons


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_runs_give_back_the_mask(share):
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 7), (9, 1), (13, 17)]:
        mask = rng.random((height, width)) < share
        assert np.array_equal(decode_rle(encode_rle(mask)), mask)


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    # pycocotools.mask.encode of a disc of radius 13.3 around (15, 20) in 30x40 pixels
    mask = np.hypot(*(np.indices((30, 40)) - [[[15]], [[20]]])) < 13.3
    counts = "o65f06K4M2N2N2N2O0O2O000O2O00000001N10001N101N2N2N2N3L5JZ5"
    assert np.array_equal(decode_rle({"size": [30, 40], "counts": counts}), mask)


@pytest.mark.parametrize("counts", [[3, 5], [3, 10], [5, -1, 5], "", "000"])
def test_runs_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(ValueError, match="in a mask of 3x3"):
        decode_rle({"size": [3, 3], "counts": counts})


def test_polygon_holds_the_pixels_whose_centres_lie_inside():
    corners = np.array([[2.2, 1.1], [27.4, 8.3], [20.5, 26.0], [5.3, 21.7]])  # convex: a side tells inside from outside
    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(24) + 0.5)
    inside = np.ones((24, 30), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0
    assert np.array_equal(fill_polygons([corners], 24, 30), inside)
    assert np.array_equal(fill_polygons([corners[::-1]], 24, 30), inside)
    shifted = corners - (10, 9)  # partly outside of the canvas
    assert np.array_equal(fill_polygons([shifted], 24, 30)[: 24 - 9, : 30 - 10], inside[9:, 10:])


def test_an_object_of_two_polygons_has_the_pixels_of_both():
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    mask = fill_polygons([square, square + 2], 8, 8)
    assert mask.sum() == 16 + 16 - 4
    assert mask[:4, :4].all()
    assert mask[2:6, 2:6].all()
