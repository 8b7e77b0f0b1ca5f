"""Remote shards: fetched whole when first read, by any process, and refused where they are damaged."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from datamodules import UserError
from datamodules.storage import shards
from tests.support.shards import Read, reader, write


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BYTEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_remote_shards_are_fetched_whole_when_first_read(folder, cache):
    url = f"file://{folder}"
    source = reader(url)
    assert source.keys == reader(folder).keys
    assert not cache.exists()
    assert source.read(5) == reader(folder).read(5)
    line = shards.read_manifest(url)["splits"]["train"]["shards"][1]
    assert [path.name for path in cache.glob("*.tar")] == [f"{line['sha256']}.tar"]
    assert not list(cache.glob("*.part"))
    assert shards.fingerprint(url, shards.read_manifest(url)) == shards.read_manifest(folder)["fingerprint"]


def test_a_url_that_became_a_path_is_still_a_url(folder, cache):
    assert reader(Path(f"file://{folder}/")).read(5) == reader(folder).read(5)


def test_remote_shards_are_read_by_several_workers_at_once(folder, cache):
    loader = DataLoader(Read(reader(f"file://{folder}")), batch_size=None, num_workers=3)
    expected = reader(folder)
    assert list(loader) == [expected.read(number) for number in range(8)]
    assert len(list(cache.glob("*.tar"))) == 2


def test_shards_are_read_over_http_by_workers_forked_after_the_manifest_was(folder, cache):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        loader = DataLoader(Read(reader(f"http://127.0.0.1:{server.server_port}")), batch_size=None, num_workers=2)
        expected = reader(folder)
        assert list(loader) == [expected.read(number) for number in range(8)]
        server.shutdown()


def test_a_remote_shard_of_another_size_is_refused_and_leaves_nothing(folder, cache):
    source = reader(f"file://{folder}")
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(UserError, match=r"train-000000\.tar has \d+ bytes but \d+ in its manifest"):
        source.read(0)
    assert not list(cache.glob("*.tar")) + list(cache.glob("*.part"))


def test_a_remote_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"file://.*/nowhere/manifest\.json cannot be read \(FileNotFoundError"):
        reader(f"file://{tmp_path}/nowhere")
