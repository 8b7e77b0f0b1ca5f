"""COCO annotation files and category ids."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import read_bytes
from ..core.errors import UserError

# COCO's 80 classes in the order of their ids, which go from 1 to 90 without the ten unused ones
COCO_NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket,
bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza,
donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone,
microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""
COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = [number for number in range(1, 91) if number not in COCO_UNUSED]
COCO_CATEGORIES = dict(zip(COCO_IDS, COCO_NAMES.replace("\n", " ").split(", "), strict=True))


def annotation_file(folder: Path, name: str) -> Path:
    """The annotation file of the images in folder/name."""
    return folder / "annotations" / f"instances_{name}.json"


class Instances:
    """One annotation file. Images are sorted by id and include those without annotations.

    Args:
        path: DIR/annotations/instances_NAME.json, with its images in DIR/NAME.
        categories: names of the allowed categories by id.
        how_to_make: the command that makes the folder, for error messages.

    Raises:
        UserError: if the file is missing, not JSON, lacks a field, or has an unknown category or image.
    """

    def __init__(self, path: Path, categories: Mapping[int, str], how_to_make: str) -> None:
        try:
            content = json.loads(read_bytes(path))
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing: run `{how_to_make}`, or set --data.data_dir") from error
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}): delete it and run `{how_to_make}`") from error
        try:
            check_categories(content, categories)
            records = list_images(content)
        except KeyError as error:
            raise UserError(f"{path} is not a COCO annotation file: an entry has no {error}") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is not a COCO annotation file: {error}") from error
        self.info = content.get("info", {})
        self.files: list[str] = [record["file_name"] for record in records]
        # one bytes object instead of millions of objects, whose reference counts would make worker processes copy them
        packed = [pickle.dumps(record) for record in records]
        self._packed, self._ends = b"".join(packed), np.cumsum([0] + [len(part) for part in packed])

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Returns id, file_name, height, width and objects (see `read_object`) of one image."""
        return pickle.loads(memoryview(self._packed)[self._ends[number] : self._ends[number + 1]])


def check_categories(content: dict, expected: Mapping[int, str]) -> None:
    """Raises ValueError if a category has an unexpected id or name, or an annotation has an unknown category."""
    for category in content["categories"]:
        number, name = category["id"], category["name"]
        if expected.get(number) != name:
            raise ValueError(f"category {number} is {name!r}, expected {expected.get(number)!r}: set --data.categories")
    unknown = {annotation["category_id"] for annotation in content["annotations"]} - set(expected)
    if unknown:
        raise ValueError(f"annotations have unknown categories {sorted(unknown)}: set --data.categories")


def list_images(content: dict) -> list[dict[str, Any]]:
    """One record per image, sorted by id, with its objects. Raises ValueError for duplicate or unknown image ids."""
    records = {}
    for image in content["images"]:
        if image["id"] in records:
            raise ValueError(f"image {image['id']} is listed twice")
        records[image["id"]] = {key: image[key] for key in ("id", "file_name", "height", "width")} | {"objects": []}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in records:
            raise ValueError(f"annotation {annotation['id']} has the unknown image {annotation['image_id']}")
        records[annotation["image_id"]]["objects"].append(read_object(annotation))
    return [records[number] for number in sorted(records)]


def read_object(annotation: dict) -> dict[str, Any]:
    """Converts an annotation: bbox stays x, y, width, height; box is x0, y0, x1, y1; the segmentation stays as it is
    (polygons, RLE or None)."""
    x, y, width, height = map(float, annotation["bbox"])
    return {
        "id": annotation["id"],
        "bbox": (x, y, width, height),
        "box": (x, y, x + width, y + height),
        "category": annotation["category_id"],
        "crowd": bool(annotation.get("iscrowd", 0)),
        "area": float(annotation.get("area", width * height)),
        "segmentation": annotation.get("segmentation"),
    }
