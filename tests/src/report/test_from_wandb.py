"""Runs from W&B: what src.fit logs, served to W&B's own client by a stand-in for its server, compares as the run folders."""

import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

import src.compare as compare
import src.fit as fit
from datamodules import UserError
from src.report.comparison import compare_runs
from src.runs.folder import find_runs
from tests.support import DIGITS

BLOCK = 2**15


def records(path: Path) -> Iterator[Record]:
    """W&B's file of an offline run: a head of 7 bytes, then LevelDB's log format."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # too little is left of the block for a head
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(parts)
            parts = b""


def logged(folder: Path) -> dict:
    """Config, summary and history as `wandb sync` would send them."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict = {"config": {}, "summary": {}, "history": [], "files": {}, "id": path.stem.removeprefix("run-")}
    for record in records(path):
        for config in (record.run.config, record.config):
            for item in config.update:
                put(found["config"], item)
        for item in record.summary.update:
            put(found["summary"], item)
        for file in record.files.files:
            found["files"][file.path] = (path.parent / "files" / file.path).read_bytes()
        if record.HasField("history"):
            row: dict = {}
            for item in record.history.item:
                put(row, item)
            found["history"].append(row)
    return found


def put(place: dict, item) -> None:
    *parents, last = item.nested_key or [item.key]
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = json.loads(item.value_json)


class Server(BaseHTTPRequestHandler):
    """Answers what W&B's client asks of the server: who am I, which runs are there, their history."""

    runs: list[dict]
    asked: list[dict]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query, variables = body["query"], body.get("variables") or {}
        self.asked.append(variables)
        if "query RunFullHistory" in query:
            (run,) = [run for run in self.runs if run["id"] == variables["name"]]
            answer = {"project": {"run": {"history": [json.dumps(row) for row in run["history"]]}}}
        elif "query RunFiles" in query:
            (run,) = [run for run in self.runs if run["id"] == variables["name"]]
            answer = {
                "project": {
                    "internalId": "1",
                    "run": {"fileCount": len(run["files"]), "files": self.files(run, variables)},
                }
            }
        elif "query Runs(" in query:
            answer = {"project": self.project() if variables["project"] == "bytebench" else None}
        else:
            viewer = {"id": "1", "name": "me", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}
            answer = {"viewer": viewer, "serverInfo": {"features": []}}
        content = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def project(self) -> dict:
        edges = [
            {
                "cursor": run["id"],
                "node": {
                    "id": run["id"],
                    "name": run["id"],
                    "projectId": "1",
                    "state": "finished",
                    "tags": [],
                    "config": json.dumps({name: {"value": value} for name, value in run["config"].items()}),
                    "summaryMetrics": json.dumps(run["summary"]),
                    "systemMetrics": "{}",
                    "historyKeys": {"lastStep": len(run["history"])},
                },
            }
            for run in self.runs
        ]
        page = {"endCursor": None, "hasNextPage": False}
        return {"internalId": "1", "runCount": len(edges), "readOnly": True, "runs": {"edges": edges, "pageInfo": page}}

    def files(self, run: dict, variables: dict) -> dict:
        edges = []
        for name, content in run["files"].items():
            if name in variables["fileNames"]:
                url = f"http://{self.headers['Host']}/{run['id']}/{name}"
                node = {"id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": len(content)}
                edges.append({"node": {**node, "mimetype": None, "updatedAt": None, "md5": None}, "cursor": name})
        return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}

    def do_GET(self) -> None:
        _, run_id, name = self.path.split("/", 2)
        (content,) = [run["files"][name] for run in self.runs if run["id"] == run_id]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two seeds, logged to W&B offline."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        wandb.teardown()
        for seed in ("0", "1"):
            options = ["--seed_everything", seed, "--runs_dir", str(folder), "--trainer.limit_train_batches", "10"]
            fit.main(["--config", DIGITS, "--trainer.max_epochs", "2", *options])
        wandb.teardown()
    return folder


@pytest.fixture
def server(runs, monkeypatch, tmp_path):
    handler = type("Handler", (Server,), {"runs": [], "asked": []})
    handler.runs = [logged(run.folder) for run in find_runs([runs])]
    found = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{found.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield handler
    found.shutdown()
    found.server_close()
    wandb.teardown()


def known(config: dict) -> dict:
    """Without options that are None, which W&B does not keep."""
    return {name: value for name, value in config.items() if value is not None}


def test_runs_from_wandb_compare_as_their_folders_do(runs, server):
    found = compare.main(["--from-wandb", "me/bytebench"])
    wanted = compare_runs(find_runs([runs]))
    # predictions stay at home: intervals are over seeds alone
    columns = [name for name in wanted.frame() if not name.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(found.frame()[columns], wanted.frame()[columns])
    assert found.summary == wanted.summary
    for from_wandb, kept in zip(found.records, wanted.records, strict=True):
        assert from_wandb.results == kept.results
        assert from_wandb.data == kept.data
        assert from_wandb.environment == kept.environment
        assert known(from_wandb.config) == known(kept.config)


def test_the_config_holds_what_was_chosen_and_no_environment(runs, server):
    config = server.runs[0]["config"]
    flat = pd.json_normalize(config).columns
    assert len(flat) < 60
    assert config["model"]["init_args"]["backbone"]["init_args"]["num_latents"] == 16
    assert config["trainer"] == {"max_epochs": 2, "gradient_clip_val": 10.0, "limit_train_batches": 10}
    assert {row["config"]["seed_everything"] for row in server.runs} == {0, 1}


def test_runs_of_version_0_2_are_read_from_their_config(runs, server):
    for logged_run, run in zip(server.runs, find_runs([runs]), strict=True):
        logged_run["files"] = {}
        logged_run["config"] = run.config() | {
            "record": {name: run.read(f"{name}.json") for name in ("data", "environment")}
        }
    found = compare.main(["--from-wandb", "me/bytebench"])
    assert found.frame()["top1"].tolist() == pytest.approx(compare_runs(find_runs([runs])).frame()["top1"].tolist())


def test_curves_come_along(runs, server):
    pages = compare.main(["--from-wandb", "me/bytebench", "--html", str(runs / "page.html")])
    assert len(pages.records) == 2
    assert '"val/top1":[[' in (runs / "page.html").read_text()


def test_a_group_is_asked_for_by_its_name_and_runs_of_others_or_unfinished_ones_are_passed_over(runs, server):
    server.runs.append({"id": "other", "config": {"lr": 1}, "summary": {"loss": 1}, "history": [], "files": {}})
    server.runs.append({**server.runs[0], "id": "unfinished", "summary": {"train/loss": 1.0}})
    assert len(compare.main(["--from-wandb", "me/bytebench/digits"]).records) == 2
    assert any("digits" in str(variables.get("filters")) for variables in server.asked)


def test_no_project_no_run_and_no_network_are_told_in_one_line(server, monkeypatch):
    with pytest.raises(UserError, match="me/nothing"):
        compare.main(["--from-wandb", "me/nothing"])
    server.runs.clear()
    with pytest.raises(UserError, match="holds no finished run"):
        compare.main(["--from-wandb", "me/bytebench"])
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb.Api, "_HTTP_TIMEOUT", 1)  # seconds of trying again; read from the environment only once
    wandb.teardown()
    with pytest.raises(UserError, match="check the name, the network"):
        compare.main(["--from-wandb", "me/bytebench"])
