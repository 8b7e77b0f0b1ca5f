"""Tars that others wrote are adopted as they are: every sample, in one order, and nothing is written into them."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import webdataset
from torch.utils.data import DataLoader

from datamodules import BadSampleError, UserError
from datamodules.core.order import OrderedBatches
from datamodules.prepare import run
from datamodules.storage import remote, shards
from datamodules.storage.adopt import braces
from tests.support.flaky_server import serve
from tests.support.shards import Read, content

SAMPLES, PER_TAR, BATCH = 200, 60, 6


def write_foreign(folder: Path, key="{:06d}") -> dict[str, dict[str, bytes]]:
    """Tars of webdataset's own writer; returns its samples by key, with the files of each."""
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(f"{folder}/clips-%06d.tar", maxcount=PER_TAR, verbose=0) as writer:
        for number in range(SAMPLES):
            name = key.format(number)
            writer.write({"__key__": name, "cls": number % 7, "txt": f"sample {number}", "json": {"n": number}})
    urls = sorted(map(str, folder.glob("*.tar")))
    read = webdataset.WebDataset(urls, shardshuffle=False)
    return {s["__key__"]: {n: c for n, c in s.items() if not n.startswith("__")} for s in read}


def adopted(folder: Path | str, split: str = "all") -> shards.ShardReader:
    return shards.ShardReader(folder, shards.shards_of(shards.read_manifest(folder), split))


def tar(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x.tar", ["x.tar"]),
        ("{a,b}-{08..10}", [f"{letter}-{n:02d}" for letter in "ab" for n in (8, 9, 10)]),
        ("t{0..2}{,x}", ["t0", "t0x", "t1", "t1x", "t2", "t2x"]),
        ("{a,b{1,2}}", ["a", "b1", "b2"]),
    ],
)
def test_lists_in_braces_are_what_webdataset_makes_of_them(pattern, names):
    assert list(dict.fromkeys(braces(pattern))) == names == webdataset.shardlists.expand_urls(pattern)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("foreign") / "tars"
    return folder, write_foreign(folder)


@pytest.fixture(scope="module")
def apart(foreign, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("apart") / "indices"
    assert run(["adopt", f"{foreign[0]}/clips-{{000000..000003}}.tar", "--to", str(to)]) == 0
    return to


def test_all_samples_of_webdatasets_writer_are_read_and_its_tars_left_alone(foreign, apart, capsys):
    folder, samples = foreign
    before = content(folder)
    reader = adopted(apart)
    assert len(samples) == len(reader.keys) == SAMPLES
    assert {key: reader.read(number) for number, key in enumerate(reader.keys)} == samples
    assert content(folder) == before
    assert run(["lint", str(apart)]) == 0
    assert run(["stats", str(apart)]) == 0


def test_indices_beside_the_tars_give_the_same_data(foreign, apart, tmp_path):
    beside = tmp_path / "tars"
    before = {}
    for name, data in content(foreign[0]).items():
        (beside / name).parent.mkdir(exist_ok=True)
        (beside / name).write_bytes(data)
        before[name] = data
    assert run(["adopt", f"{beside}/*.tar"]) == 0
    assert {name: data for name, data in content(beside).items() if name in before} == before
    manifests = [shards.read_manifest(folder) for folder in (beside, apart)]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"] == shards.fingerprint(beside, manifests[0])
    assert adopted(beside).keys == adopted(apart).keys
    moved = beside.rename(tmp_path / "moved")
    assert adopted(moved).read(7) == adopted(apart).read(7)
    with (moved / "clips-000001.tar").open("r+b") as damaged:
        damaged.seek(600)
        damaged.write(b"xyz")
    assert run(["lint", str(moved)]) == 1
    assert shards.fingerprint(moved, manifests[0]) != manifests[0]["fingerprint"]


class Keys(Read):
    """The keys of the samples of a step, which are read."""

    def __getitem__(self, refs: list) -> list[str]:
        return [json.loads(self.source.read(ref.index)["json"])["n"] for ref in refs if ref.real]


def steps(folder: Path, workers: int = 0, done: int = 0, epoch: int = 0) -> list[list[int]]:
    source = Keys(adopted(folder))
    order = OrderedBatches(len(source), BATCH, seed=5, training=True, steps_done=(lambda: done) if done else None)
    order.set_epoch(epoch)
    return list(DataLoader(source, batch_size=None, sampler=order, num_workers=workers))


def be_rank(rank: int, world: int, folder: Path, out: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=world)
    torch.save(steps(folder, workers=rank % 2), out / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.integration
def test_the_order_is_the_same_with_any_number_of_workers_and_ranks_and_goes_on_in_mid_epoch(apart, tmp_path):
    alone = steps(apart)

    assert len({n for step in alone for n in step}) == len(alone) * BATCH == SAMPLES // BATCH * BATCH
    assert steps(apart, workers=1) == steps(apart, workers=3) == alone
    assert steps(apart, workers=1, done=len(alone) + 11) == steps(apart, epoch=1)[11:]
    for world in (2, 3):
        out = tmp_path / str(world)
        out.mkdir()
        torch.multiprocessing.start_processes(be_rank, (world, apart, out), nprocs=world, start_method="fork")
        ranks = [torch.load(out / f"{rank}.pt") for rank in range(world)]
        for number, step in enumerate(alone):
            assert sorted(n for rank in ranks for n in rank[number]) == sorted(step)


def test_tars_at_a_url_are_adopted_once_and_read_from_there(foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("BYTEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    with serve(foreign[0]) as server:
        server.failures["clips-000001.tar"] = [503]
        to = tmp_path / "indices"
        assert run(["adopt", f"{server.url}/clips-{{000000..000003}}.tar", "--to", str(to)]) == 0
        assert server.asked["clips-000000.tar"] in (1, 2)  # its size may be asked for
        reader = adopted(to)
        assert {key: reader.read(number) for number, key in enumerate(reader.keys)} == foreign[1]
        for path in (tmp_path / "cache").glob("*.tar"):
            path.unlink()  # it is fetched again
        assert adopted(to).read(70) == foreign[1]["000070"]
        assert shards.fingerprint(to, shards.read_manifest(to)) == shards.read_manifest(to)["fingerprint"]
    with pytest.raises(UserError, match="outside of its folder"):
        adopted(f"file://{to}")  # from elsewhere, a manifest names no other places


def test_splits_are_named_and_folders_and_dots_stay_in_keys(tmp_path):
    write_foreign(tmp_path / "a" / "x", key="day.1/take.{:03d}/mic")
    tar(tmp_path / "b" / "v1.0-val.tar", *((f"./k.{n}.{e}", b"%d" % n) for n in range(9) for e in ("jpg", "cls")))
    to = tmp_path / "to"
    assert run(["adopt", f"train={tmp_path}/a/**/*.tar", f"val={tmp_path}/b/v1.0-val.tar", "--to", str(to)]) == 0
    train, val = adopted(to, "train"), adopted(to, "val")
    assert len(train.keys) == SAMPLES
    assert train.keys[70] == "day.1/take.070/mic"
    assert train.read(70)["txt"] == b"sample 70"
    assert val.keys == [f"k.{n}" for n in range(9)]
    assert val.read(3) == {"jpg": b"3", "cls": b"3"}


def test_webdatasets_extensions_with_a_dot_are_kept_and_dots_can_be_chosen(tmp_path, capsys):
    members = [(f"a{n}.{e}", b"x") for n in range(5) for e in ("jpg", "seg.png", "depth.png")]
    path = tar(tmp_path / "x.tar", *members)
    assert run(["adopt", str(path)]) == 0
    assert adopted(tmp_path).read(2).keys() == {"jpg", "seg.png", "depth.png"}
    assert run(["adopt", str(path), "--dot", "last"]) == 0
    assert set(adopted(tmp_path).keys[:3]) == {"a0", "a0.seg", "a0.depth"}


def test_members_in_any_order_belong_to_their_samples(tmp_path):
    names = [f"s{n}.{e}" for e in ("txt", "json", "cls") for n in range(6)]
    tar(tmp_path / "x.tar", *((name, name.encode()) for name in names[::2] + names[1::2]))
    assert run(["adopt", f"{tmp_path}/x.tar"]) == 0
    reader = adopted(tmp_path)
    assert sorted(reader.keys) == [f"s{n}" for n in range(6)]
    for number, key in enumerate(reader.keys):
        assert reader.read(number) == {e: f"{key}.{e}".encode() for e in ("txt", "json", "cls")}


def test_keys_that_are_in_several_tars_are_told_and_get_the_name_of_their_tar(tmp_path, caplog):
    for name in ("a", "b"):
        tar(tmp_path / f"{name}.tar", *((f"{n:03d}.txt", f"{name}{n}".encode()) for n in range(5)))
    assert run(["adopt", f"{tmp_path}/{{a,b}}.tar"]) == 0
    assert "the key 000 is in several tars" in caplog.text
    reader = adopted(tmp_path)
    assert reader.keys == [f"{name}/{n:03d}" for name in "ab" for n in range(5)]
    assert reader.read(6)["txt"] == b"b1"


def test_a_file_that_is_there_twice_is_told(tmp_path, capsys):
    tar(tmp_path / "x.tar", ("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3"))
    assert run(["adopt", f"{tmp_path}/x.tar"]) == 2
    assert "x.tar has a.txt twice" in capsys.readouterr().err


def test_a_tar_that_is_cut_short_gives_its_whole_samples_and_the_others_are_counted(tmp_path, caplog, capsys):
    path = tar(tmp_path / "x.tar", *((f"s{n}.bin", bytes(3000)) for n in range(5)))
    path.write_bytes(path.read_bytes()[: 3 * 3584 + 1500])
    assert run(["adopt", str(path)]) == 0
    entry = shards.read_manifest(tmp_path)["splits"]["all"]
    assert [entry[name] for name in ("expected", "written", "unreadable")] == [4, 3, 1]
    assert "s3.bin is cut short" in caplog.text
    assert "3 all samples in 1 tars, 1 unreadable (s3 in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.tar", b"no tar at all" * 99, "is not a tar"),
        ("x.tar", b"\x1f\x8b" + bytes(600), "is compressed with gzip"),
        ("y.tar", b"", "there is no"),
    ],
)
def test_what_is_no_tar_is_refused_in_one_line(name, data, words, tmp_path, capsys):
    (tmp_path / name).write_bytes(data)
    assert run(["adopt", f"{tmp_path}/x.tar"]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error


def test_shards_of_our_own_are_left_alone(tmp_path, capsys):
    shards.write_shards(tmp_path, "ours", {"all": [1]}, one, made_with={}, licence="", workers=1)
    before = content(tmp_path)
    assert run(["adopt", f"{tmp_path}/*.tar"]) == 2
    assert "name it as the data_dir" in capsys.readouterr().err
    assert content(tmp_path) == before


def one(number: int) -> dict:
    return {"__key__": f"k{number}", "txt": "x"}


def test_a_tar_that_changes_after_it_was_adopted_is_never_read_as_if_it_had_not(tmp_path):
    path = tar(tmp_path / "x.tar", *((f"s{n}.bin", bytes([n]) * 900) for n in range(5)))
    assert run(["adopt", str(path)]) == 0
    reader = adopted(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\2" * 900, b"\7" * 900))
    with pytest.raises(BadSampleError, match="is damaged"):
        reader.read(2)
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(UserError, match="is damaged"):
        adopted(tmp_path)
