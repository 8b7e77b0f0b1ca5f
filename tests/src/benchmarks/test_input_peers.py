"""What the input benchmark compares is the same work: every loader gives the same samples in the same order."""

import pytest
import torch

from src.benchmarks.input import peers
from src.benchmarks.input.files import kinds, write
from src.benchmarks.input.loaders import PEERS, ours

# Mean difference, of 256 or 65,536: decoders and filters differ, and sounds by half a sample
TOLERANCE = {"jpg": 4.0, "wav": 260.0, "mp4": 6.0}


def whole(batches) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and labels of all batches."""
    pairs = []
    for batch in batches:
        named = isinstance(batch, dict)
        x, label = (batch["x"], batch["target" if "target" in batch else "label"]) if named else batch
        real = batch["weight"] > 0 if "weight" in batch else slice(None)  # ours fills the last batch up
        pairs.append((x[real], torch.as_tensor(label)[real]))
    return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))


@pytest.mark.parametrize("files", kinds(0.02), ids=lambda files: files.suffix)
def test_all_loaders_give_the_same_samples_in_the_same_order(files, tmp_path):
    write(files, tmp_path)
    found, labels = whole(ours(files, tmp_path, False, 0))
    others = {"tars": ours(files, tmp_path, True, 0)}
    installed = [name for name in PEERS if peers.find_spec(name)]
    assert {"torchvision", "webdataset"} <= set(installed)
    others |= {name: PEERS[name](files, tmp_path, 0) for name in installed}
    assert labels.tolist() == sorted(labels.tolist())
    for name, batches in others.items():
        values, same = whole(batches)
        assert values.shape == found.shape, name
        assert values.dtype == found.dtype, name
        assert same.tolist() == labels.tolist(), name
        if files.suffix in TOLERANCE:
            assert (values.float() - found.float()).abs().mean() < TOLERANCE[files.suffix], name


def test_a_loader_that_is_not_installed_is_named_in_a_line_and_its_row_is_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "datasets" else True)
    clouds = kinds(0.01)[-1]
    rows = {row["peer"]: row for row in peers.compared(clouds, tmp_path, rounds=1)}
    assert "datasets is not installed" in capsys.readouterr().out
    assert "peer_per_s" not in rows["datasets"]
    assert not rows["datasets"]["installed"]
    assert rows["webdataset"]["ratio"] == pytest.approx(
        rows["webdataset"]["ours_per_s"] / rows["webdataset"]["peer_per_s"]
    )
