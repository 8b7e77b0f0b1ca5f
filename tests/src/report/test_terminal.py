"""The terminal: names stay whole, columns that do not fit are left out, and text of others is no markup."""

import sys

import pytest
from rich.cells import cell_len

import src.compare as compare
from src.config.package import command_name
from src.report.next_steps import print_next_after_run, print_next_after_suite
from src.report.table import print_metrics, print_runs, runs_frame
from src.report.terminal import WIDE, Column, fold, print_table
from src.runs.folder import Run, find_runs
from tests.support.run_folders import make_run

NAMES = ("fixed_lambda_resnet", "random_transformer", "cross4_interleaved")
LONG = (
    "lambda_resnet_50_global_scope_squeeze_excite_share_embeddings",
    "perceiver/cross8-interleaved_lr0.003",
    "画像_認識",
)


def table_lines(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line[:1] in "┏┃┡│└"]


def rows(shown: str) -> list[list[str]]:
    """The cells of every printed line below a table's heading."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[:1] == "│"]


def heading_words(shown: str) -> set[str]:
    return {word for line in shown.splitlines() if line[:1] == "┃" for word in line.replace("┃", " ").split()}


def make_runs(folder, cells, seeds=2):
    for cell in cells:
        for seed in range(seeds):
            make_run(folder, cell.replace("/", "_"), seed, results={"cell": cell})
    return folder


@pytest.mark.parametrize("width", [70, 80, 100, 140])
@pytest.mark.parametrize("names", [NAMES, LONG], ids=["usual", "long"])
def test_names_break_only_after_separators_and_no_value_breaks(names, width, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    comparison = compare.main([str(make_runs(tmp_path, names))])
    shown = capsys.readouterr().out
    assert all(cell_len(line) <= width for line in table_lines(shown))
    whole, started = [], ""
    for name, count, *values in rows(shown):
        started = started + name if not count else name
        assert started in names or started[-1] in "/-_"
        if count:
            assert all(values)
        if started in names:
            whole.append(started)
    wanted = [variant.label for variant in comparison.variants]
    assert whole == [name for name in wanted for _ in range(2)] + wanted  # runs, then variants


@pytest.mark.parametrize("width", [100, 140])
def test_names_of_our_suites_take_one_line_from_100_columns_on(width, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    compare.main([str(make_runs(tmp_path, NAMES))])
    assert all(all(row) for row in rows(capsys.readouterr().out))


def test_what_people_look_at_is_shown_first_and_the_rest_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    folder = str(make_runs(tmp_path, NAMES))
    compare.main([folder])
    shown = capsys.readouterr().out
    first = {"cell", "seed", "seeds", "top1", "difference", "parameters"}
    assert first <= heading_words(shown)
    assert not {"FLOPs", "memory", "loss"} & heading_words(shown)
    assert "Not shown: rank, FLOPs, samples/s, memory, time: --wide shows all columns" in shown
    compare.main([folder, "--wide"])
    wide = capsys.readouterr().out
    assert first | {"FLOPs", "memory", "time", "loss", "modalities"} <= heading_words(wide)
    assert "Not shown" not in wide


def test_columns_of_the_highest_rank_go_first_and_those_of_rank_0_stay(monkeypatch, capsys):
    columns = [Column(key, key, ["0123456789"], rank) for key, rank in zip("abcd", (0, 2, 1, WIDE), strict=True)]
    hidden = {}
    for width in (60, 30, 20, 5):
        monkeypatch.setenv("COLUMNS", str(width))
        hidden[width] = print_table(columns)
    assert hidden == {60: ["d"], 30: ["b", "d"], 20: ["b", "c", "d"], 5: ["b", "c", "d"]}
    assert print_table(columns, wide=True) == []
    assert capsys.readouterr().out.count("0123456789") == 3 + 2 + 1 + 1 + 4


def test_a_name_without_separators_stays_whole():
    assert fold("x" * 30, 10) == "x" * 30
    assert fold("ab_" + "x" * 30, 10) == "ab_\n" + "x" * 30


@pytest.mark.parametrize("text", ["[/nope]", "[bold]b[/bold]", ":smile:", "[link=file:///x]y[/link]"])
def test_text_of_other_peoples_runs_is_no_markup(text, tmp_path, capsys):
    make_run(tmp_path, "theirs", 0, results={"cell": text})
    make_run(tmp_path, "ours", 0)
    make_run(tmp_path, "on_other_data", 0, data={"dataset": text})
    compare.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert [row[0] for row in rows(shown)].count(text) == 2
    assert f"data: {text}, not FashionMNIST" in shown
    print_metrics({text: 0.5}, text)
    assert capsys.readouterr().out.count(text) == 2


def test_escape_sequences_and_line_breaks_of_other_people_are_written_out(tmp_path, capsys):
    make_run(tmp_path, "theirs", 0, results={"cell": "a\x1b]0;title\x07\nb\x9b2J"})
    print_runs(runs_frame(find_runs([tmp_path])))
    shown = capsys.readouterr().out
    assert r"a\x1b]0;title\x07\nb\x9b2J" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_after_a_run_its_experiment_is_compared_or_the_run_drawn_where_it_is_alone(tmp_path, capsys):
    run = Run(make_run(tmp_path, "first", 0, experiment="an experiment"))
    print_next_after_run(run)
    assert capsys.readouterr().out == f"next: python -m src.visualize '{run.folder}'\n"
    make_run(tmp_path, "second", 0, experiment="an experiment")
    print_next_after_run(run)
    assert capsys.readouterr().out == f"next: python -m src.compare '{tmp_path}/an experiment'\n"


def test_the_command_after_a_suite_compares_its_runs(tmp_path, capsys):
    make_runs(tmp_path, NAMES)
    print_next_after_suite(tmp_path / "made_up")
    told, command = capsys.readouterr().out.splitlines()
    assert told == f"runs: {tmp_path}/made_up"
    module, folder = command.removeprefix("next: python -m ").split()
    assert module == "src.compare"
    assert len(compare.main([folder]).records) == 6


def test_commands_are_named_as_the_user_called_the_program(monkeypatch):
    called = {"/usr/bin/bytebench": "bytebench compare", "/home/me/src/fit.py": "python -m src.compare"}
    for program, wanted in called.items():
        monkeypatch.setattr(sys, "argv", [program, "fit"])
        assert command_name("compare") == wanted
