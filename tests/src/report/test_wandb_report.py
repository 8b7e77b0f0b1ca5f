"""A comparison in W&B: the run that holds it, and the views that W&B's own classes make of it."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import wandb

from src.report.comparison import compare_runs
from src.report.wandb_report import save_views, workspace
from src.runs.folder import find_runs
from tests.support import ROOT
from tests.support.run_folders import make_run


def test_a_new_process_logs_tables_charts_and_page(tmp_path):
    for variant in ("one", "two"):
        make_run(tmp_path / "runs", variant, 0)
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "src", "compare", "runs", "--wandb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    media = {path.suffix for path in tmp_path.rglob("files/media/*/**/*") if path.is_file()}
    assert media >= {".json", ".png", ".html"}
    assert "WANDB_MODE=online also makes a workspace" in done.stdout


class Server(BaseHTTPRequestHandler):
    """Keeps the views that W&B's client sends, and answers what it asks before."""

    views: list[dict]
    takes: set[str]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(content) if self.path == "/graphql" else {"query": ""}
        query, variables = body["query"], body.get("variables") or {}
        answer: dict = {"viewer": {"id": "1", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}}
        answer |= {"serverInfo": {"features": []}}
        if "upsertView" in query:
            if variables["type"] not in self.takes:
                self.send_error(403)
                return
            self.views.append(variables)
            view = {
                **variables,
                "id": "VmlldzoxMjM=",
                "name": variables["name"],
                "user": {"name": "me", "username": "me"},
            }
            view |= {
                "project": {"id": "1", "name": "bytebench", "entityName": "me"},
                "createdAt": None,
                "updatedAt": None,
            }
            answer = {"upsertView": {"view": view, "inserted": True}}
        elif "projects" in query or "models" in query:
            node = {
                "id": "1",
                "name": "bytebench",
                "entityName": "me",
                "createdAt": "2026-01-01",
                "isBenchmark": False,
                "user": None,
            }
            page = {"endCursor": None, "hasNextPage": False}
            answer = {"models": {"edges": [{"node": node, "cursor": "1"}], "pageInfo": page}}
        elif "project(" in query:
            answer = {"project": {"id": "1", "internalId": "1", "name": "bytebench"}}
        content = json.dumps({"data": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Server,), {"views": [], "takes": {"project-view", "runs"}})
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


@pytest.fixture
def comparison(tmp_path):
    for variant in ("one", 'it\'s "two"'):
        for seed in range(3):
            make_run(tmp_path / "runs", variant, seed)
    return compare_runs(find_runs([tmp_path / "runs"]))


def test_workspace_and_report_are_sent_with_the_runs_grouped_by_variant(server, comparison, capsys):
    save_views(comparison, "me")
    printed = capsys.readouterr().out
    assert "workspace: " in printed
    assert "report: " in printed
    sent, written = server.views
    spec = json.loads(sent["spec"])["section"]
    (runs,) = spec["runSets"]
    wanted = {"group": ["made_up"], "jobType": ['it\'s "two"', "one"], "state": "finished"}
    assert {item["key"]["name"]: item["value"] for item in runs["filters"]["filters"]} == wanted
    assert [group["name"] for group in runs["grouping"]] == ["jobType"]
    panels = [panel for section in spec["panelBankConfig"]["sections"] for panel in section["panels"]]
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert [(curve["groupBy"], curve["groupAgg"], curve["groupArea"]) for curve in curves] == [
        ("jobType", "mean", "minmax")
    ] * 2
    blocks = json.dumps(json.loads(written["spec"])["blocks"])
    assert comparison.summary in blocks
    assert "| one |" in blocks


def test_views_refer_to_what_runs_log(server, comparison):
    spec = workspace(comparison, "me")._to_model().spec.model_dump(by_alias=True)
    panels = [panel for section in spec["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]
    names = {name for panel in panels for name in panel["config"].get("metrics") or []}
    assert names == {"val/top1", "train/loss", "test/top1"}
    costs = {panel["config"]["xAxis"] for panel in panels if panel["viewType"] == "Scatter Plot"}
    assert costs == {f"summary:results.{cost}" for cost in ("parameters", "flops_per_example", "wall_time_seconds")}


def test_what_the_server_refuses_is_told_in_a_line(server, comparison, capsys):
    server.takes = {"runs"}
    save_views(comparison, "me")
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: W&B did not take the workspace")
    assert printed.err.count("\n") == 1
    assert "report: " in printed.out
