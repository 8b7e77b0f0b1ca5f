"""Average precision and recall: those of pycocotools on files, for random scenes, crowds, and any number of processes."""

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from datamodules import Composed
from datamodules.detection.annotations import Instances, annotation_file
from datamodules.detection.coco import Coco, CocoSplit
from datamodules.detection.masks import encode_rle
from datamodules.detection.targets import Annotations
from src.backbones import ResNet
from src.metrics.detection import KINDS, STATISTICS, DetectionMetrics
from src.metrics.registry import main_metric
from src.runs.folder import Run
from src.tasks import Detection
from src.tasks.detection import to_learn
from tests.support.coco import CATEGORIES, data_of, perfect, write_coco
from tests.support.coco import targets as targets_of

SETS = 200
IDS = list(CATEGORIES)


def official(annotations: Path, found: Path, kind: str) -> list[float]:
    """The twelve statistics of pycocotools, of two files."""
    with redirect_stdout(StringIO()):
        truth = COCO(str(annotations))
        truth.dataset.setdefault("info", {})
        evaluation = COCOeval(truth, truth.loadRes(str(found)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@dataclass
class RandomScenes:
    """Random objects and detections: as COCO's files have them, and as a batch and a detector have them."""

    annotations: dict
    found: list[dict[str, Tensor]]
    results: dict[str, list[dict]]


def rectangles(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Boxes (count, 4), x, y, width, height, of all sizes in a square."""
    size = side * rng.uniform(0.05, 0.95, (count, 2))
    return np.concatenate([(side - size) * rng.uniform(size=(count, 2)), size], axis=1).astype(np.float32)


def filled(box: np.ndarray, side: int) -> np.ndarray:
    x, y, width, height = np.round(box).astype(int)
    mask = np.zeros((side, side), bool)
    mask[max(y, 0) : max(y + height, y + 1, 1), max(x, 0) : max(x + width, x + 1, 1)] = True
    return mask


def annotate(rng: np.random.Generator, box: np.ndarray, side: int, ids: np.ndarray) -> dict:
    """An object, in one of the formats of COCO's masks; one of eight is a crowd."""
    crowd, mask = int(rng.random() < 0.125), filled(box, side)
    x, y, width, height = box.tolist()
    formats = (
        encode_rle(mask),
        compressed(mask),
        [[x, y, x + width, y, x + width, y + height], [x, y, x + width / 2, y + height, x, y + height]],
    )
    return {
        "bbox": [x, y, width, height],
        "area": float(mask.sum() * rng.uniform(0.5, 1)),
        "iscrowd": crowd,
        "segmentation": formats[int(rng.integers(2 if crowd else 3))],
        "category_id": int(rng.choice(ids)),
    }


def random_scenes(seed: int) -> RandomScenes:
    """1 to 3 pictures with 0 to 5 objects each, found twice, once or not, moved, sometimes with another class, and detections
    of nothing. Scores of odd seeds have ties. Every 20th picture has more detections than COCO counts."""
    rng = np.random.default_rng(seed)
    side, ids = int(rng.choice([24, 60, 200])), rng.choice(IDS, rng.integers(1, 3), replace=False)
    images, annotations, found = [], [], []
    results: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for number in rng.choice(1000, size=rng.integers(1, 4), replace=False).tolist():
        images.append({"id": number, "file_name": f"{number}.png", "height": side, "width": side})
        things = [annotate(rng, box, side, ids) for box in rectangles(rng, rng.integers(6), side)]
        annotations += [{**thing, "image_id": number} for thing in things]
        seen = [thing for thing in things for _ in range(rng.integers(3))]
        extra = 130 if rng.random() < 0.05 else int(rng.integers(not found, 4))
        moved = np.array([thing["bbox"] for thing in seen]).reshape(-1, 4) + rng.normal(0, 0.02 * side, (len(seen), 4))
        boxes = np.concatenate([moved, rectangles(rng, extra, side)]).astype(np.float32)
        boxes[:, 2:] = boxes[:, 2:].clip(1)
        categories = [thing["category_id"] for thing in seen] + rng.choice(ids, extra).tolist()
        categories = [int(rng.choice(ids)) if rng.random() < 0.1 else c for c in categories]
        scores = rng.uniform(size=len(boxes)).astype(np.float32)
        scores = np.ceil(4 * scores) / 4 if seed % 2 else scores
        masks = np.array([filled(box, side) for box in boxes], bool).reshape(-1, side, side)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        sizes = corners[:, 2:].astype(float) - corners[:, :2]
        for kind, name, values in (
            (
                "bbox",
                "bbox",
                [[*corner[:2].tolist(), *size.tolist()] for corner, size in zip(corners, sizes, strict=True)],
            ),
            ("segm", "segmentation", [compressed(mask) for mask in masks]),
        ):
            results[kind] += [
                {"image_id": number, "category_id": category, "score": score, name: value}
                for category, score, value in zip(categories, scores.tolist(), values, strict=True)
            ]
        labels = torch.tensor([IDS.index(category) for category in categories], dtype=torch.long)
        tensors = map(torch.from_numpy, (corners, scores, masks))
        found.append({"labels": labels, **dict(zip(("boxes", "scores", "masks"), tensors, strict=True))})
    for item, number in zip(annotations, np.cumsum(rng.integers(1, 9, len(annotations))).tolist(), strict=True):
        item["id"] = number  # with holes
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    return RandomScenes(content, found, results)


def compressed(mask: np.ndarray) -> dict:
    runs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def evaluation_targets(path: Path, order: list[int]) -> Iterator[dict]:
    """The targets of the pictures of an annotation file, in an order of their ids, as batches have them."""
    instances = Instances(path, CATEGORIES, "")
    split = CocoSplit(path.parent, instances, range(len(order)), 64, IDS, None)
    records = {record["id"]: record for record in map(instances.__getitem__, range(len(order)))}
    for number in order:
        record = records[number]
        size = torch.tensor([record["height"], record["width"]])
        yield {"image_id": torch.tensor(number), "size": size, "annotations": split.annotations(record["objects"])}


def test_precision_and_recall_of_random_scenes_are_those_of_pycocotools_on_files(tmp_path):
    measured = dict.fromkeys((prefix + name for prefix in KINDS.values() for name in STATISTICS), 0)
    annotations, files = tmp_path / "annotations.json", {kind: tmp_path / f"{kind}.json" for kind in KINDS}
    for seed in range(SETS):
        scenes, metrics = random_scenes(seed), DetectionMetrics()
        annotations.write_text(json.dumps(scenes.annotations))
        order = [image["id"] for image in scenes.annotations["images"]]
        for found, target in zip(scenes.found, evaluation_targets(annotations, order), strict=True):
            metrics.update([found], [target])
        values = metrics.compute()
        predictions = json.loads(json.dumps(metrics.predictions(IDS)))
        for kind, prefix in KINDS.items():
            assert predictions[kind] == sorted(scenes.results[kind], key=lambda result: result["image_id"])
            files[kind].write_text(json.dumps(scenes.results[kind]))
            wanted = dict(zip(STATISTICS, official(annotations, files[kind], kind), strict=True))
            assert {name: values[prefix + name].item() for name in STATISTICS} == pytest.approx(wanted, abs=1e-7)
            for name, value in wanted.items():
                measured[prefix + name] += 0 < value < 1
    assert min(measured.values()) > SETS / 20  # every statistic says something


@pytest.fixture
def coco(tmp_path) -> Path:
    """A COCO folder with three test images of different sizes; the last has an object and a crowd."""
    return write_coco(tmp_path / "coco")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Composed:
    data = Composed(str(tmp_path_factory.mktemp("composed")), scenes=(2, 2, 5), side=64, bands=1, batch_size=8)
    data.prepare_data()
    return data


def targets(data: Coco) -> list[dict]:
    return list(targets_of(data).values())


def doubtful(target: dict) -> dict[str, Tensor]:
    """Every object twice, moved, some with a wrong label, with few different scores."""
    found = {name: torch.cat([value, value]) for name, value in perfect(target).items()}
    generator = torch.Generator().manual_seed(int(target["image_id"]))
    count = len(found["boxes"])
    found["boxes"] += torch.randn(count, 4, generator=generator)
    found["masks"] = (
        torch.stack([m.roll(n % 4, dims=1) for n, m in enumerate(found["masks"])]) if count else found["masks"]
    )
    wrong = torch.rand(count, generator=generator) < 0.2
    found["labels"] = torch.where(wrong, 2 - found["labels"].clamp(max=2), found["labels"])
    found["scores"] = torch.randint(1, 4, (count,), generator=generator) / 4
    return found


def measured(predictions: list[dict], truth: list[dict]) -> dict[str, float]:
    metrics = DetectionMetrics()
    for found, target in zip(predictions, truth, strict=True):
        metrics.update([found], [target])
    return {name: value.item() for name, value in metrics.compute().items()}


def test_what_picks_the_best_checkpoint_is_what_runs_are_ranked_by(scenes):
    model = Detection(scenes.spec, partial(ResNet, name="resnet10t"), anchor_sizes=(8, 16, 32, 64, 128), channels=8)
    assert model.monitor == main_metric(DetectionMetrics().compute()) == "segm_map"


def test_the_truth_as_prediction_has_an_average_precision_of_1(coco, scenes):
    for data in (data_of(coco), scenes):
        truth = targets(data)
        found = measured([perfect(target) for target in truth], truth)
        assert found["samples"] == len(truth)
        values = [found[prefix + name] for prefix in KINDS.values() for name in STATISTICS if "map" in name]
        assert all(value in (pytest.approx(1), -1) for value in values)
        ones = [found[prefix + name] for prefix in KINDS.values() for name in ("map", "mar_100")]
        assert ones == pytest.approx([1, 1, 1, 1])


def test_nothing_found_is_0_and_nothing_annotated_is_no_value(coco):
    truth = targets(data_of(coco))
    nothing = [{name: value[:0] for name, value in perfect(target).items()} for target in truth]
    assert measured(nothing, truth)["segm_map"] == measured(nothing, truth)["mar_100"] == 0
    assert measured([perfect(truth[1])], [truth[1]])["segm_map"] == -1
    assert measured([], [])["samples"] == 0


def test_a_run_of_data_measures_what_its_files_score(coco, scenes, tmp_path):
    for data, split in ((data_of(coco), "val2017"), (scenes, "test")):
        truth = targets(data)
        metrics = DetectionMetrics()
        metrics.update([doubtful(target) for target in truth], truth)
        values = metrics.compute()
        assert 0.1 < values["map"] < 0.95
        Run(tmp_path).write_predictions("predictions", metrics.predictions(data.category_ids))
        for kind, prefix in KINDS.items():
            wanted = official(annotation_file(data.data_dir, split), tmp_path / f"predictions_{kind}.json", kind)
            assert [values[prefix + name].item() for name in STATISTICS] == pytest.approx(wanted, abs=1e-7)


def test_what_is_found_in_a_crowd_counts_neither_for_nor_against(coco):
    truth = targets(data_of(coco))
    label = truth[2]["labels"][truth[2]["iscrowd"]]

    def with_further(x0: int, y0: int, x1: int, y1: int) -> dict[str, float]:
        found = [perfect(target) for target in truth]
        mask = torch.zeros(1, 64, 64, dtype=torch.bool)
        mask[0, y0:y1, x0:x1] = 1
        box = torch.tensor([[x0, y0, x1, y1]]).float()
        wrong = {"boxes": box, "labels": label, "masks": mask, "scores": torch.full((1,), 2.0)}  # before all others
        found[2] = {name: torch.cat([wrong[name], found[2][name]]) for name in wrong}
        found[0]["labels"][:] = label  # an object of the crowd's class, so that the class counts
        relabelled = Annotations(replace(item, label=int(label)) for item in truth[0]["annotations"].items)
        return measured(found, [{**truth[0], "annotations": relabelled}, *truth[1:]])

    in_the_crowd = with_further(2, 2, 30, 14)
    assert [in_the_crowd["map"], in_the_crowd["segm_map"]] == pytest.approx([1, 1])
    assert with_further(2, 40, 30, 60)["map"] < 0.9
    assert [len(to_learn(target)["boxes"]) for target in truth] == [1, 0, 1]


def rank_metrics(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    truth, metrics = torch.load(folder / "targets.pt", weights_only=False), DetectionMetrics()
    mine = truth[rank::world] if rank < 2 else []  # the third rank has but padding
    if rank < 2 and world == 3:
        mine = truth[rank::2]
    metrics.update([doubtful(target) for target in mine], mine)
    torch.save((metrics.predictions(range(10)), metrics.compute()), folder / f"{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_find_what_one_finds(world, scenes, tmp_path):
    truth, metrics = targets(scenes), DetectionMetrics()
    torch.save(truth, tmp_path / "targets.pt")
    metrics.update([doubtful(target) for target in truth], truth)
    mp.start_processes(rank_metrics, args=(world, tmp_path), nprocs=world, start_method="fork")
    for rank in range(world):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == (
            metrics.predictions(range(10)),
            metrics.compute(),
        )
