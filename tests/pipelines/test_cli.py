"""The command line: help, options from files, exit statuses."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from importlib import metadata

import numpy as np
import pytest

from parteq.core import training
from parteq.pipelines.cli import COMMANDS, _messages, main

from .conftest import SMALL


def run_parteq(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    command = [sys.executable, "-m", "parteq", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_answers_at_once():
    result = run_parteq("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)
    # Which it does because nothing that takes long is imported.
    script = (
        "import sys; from parteq.pipelines.cli import main; main(['points', 'train', '--help']); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "escnn", "scipy", "sklearn", "matplotlib"} & set(modules)


def test_help_imports_nothing_heavy():
    code = "import sys; from parteq.pipelines.cli import main; main(['histo', 'train', '--help']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert not {"torch", "escnn", "matplotlib", "sklearn"} & set(result.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_fits_one_screen_and_ends_with_an_example(parteq, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    status, text, complaint = parteq(*name.split(), "--help")
    lines = text.rstrip().splitlines()
    assert (status, complaint) == (0, "")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert lines[-2] == "example:"
    assert lines[-1].startswith(f"  parteq {name} ")
    assert all(option in text for option in ("--seed", "--device", "--json", "--quiet", "--config"))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_valid(name):
    kind = COMMANDS[name]
    import tyro

    words = kind.example.split()[1 + len(name.split()) :]
    assert isinstance(tyro.cli(kind, args=words), kind)


@pytest.mark.parametrize("words", [["histo"], ["--nonsense"]])
def test_no_command(parteq, words):
    status, printed, complaint = parteq(*words)
    assert (status, printed) == (2, "")
    assert "parteq histo train" in complaint


def test_version(parteq):
    assert parteq("--version")[:2] == (0, f"parteq {metadata.version('parteq')}\n")


def test_no_words_or_help_lists_the_commands(parteq):
    assert parteq()[0] == parteq("--help")[0] == parteq("histo", "--help")[0] == 0
    assert "parteq degree" not in parteq("histo", "--help")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["histo", "train"], "--data, --out: must be given"),
        (["histo", "train", "--dat", "x", "--out", "run"], "--dat: is no option: --data?"),
        (
            ["histo", "train", "--data", "x", "--out", "run", "--group", "c5"],
            "--group c5: must be c4, c8, d4, so2, o2 or ",
        ),
        (["histo", "train", "--data", "x", "--out", "run", "--epochs", "many"], "--epochs many: is no whole number"),
        (["histo", "train", "--data", "x", "--out", "run", "--limit", "1.5"], "--limit 1.5: is no whole number"),
        (["histo", "train", "--data", "x", "--out", "run", "--width", "wide"], "--width wide: is no number"),
        (["histo", "train", "--data", "x", "--out", "run", "--epochs"], "--epochs: needs a value"),
        (["histo", "train", "--data", "x", "--out", "run", "--resume", "yes"], "yes: belongs to no option"),
        (["histo", "evaluate", "--run", "run", "--data", "x", "--nonsense"], "--nonsense: is no option"),
        (["histo", "evaluate", "--run", "run", "--data", "x", "--weights", "first"], "--weights first: must be "),
        (["points", "train", "--out", "run", "--group", "c5"], "--"),
        (["cryoem", "reconstruct", "--symmetry"], "--symmetry: needs a value"),
        (["degree"], "--run: must be given"),
    ],
)
def test_bad_options_are_one_line(parteq, words, said):
    status, printed, complaint = parteq(*words)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith(f"parteq: {said}")
    assert complaint.endswith(f"(see parteq {' '.join(words[:2] if len(words) > 1 else words)} --help)\n")


def test_a_file_gives_options_and_the_command_line_wins(parteq, cells, tmp_path):
    file, out = tmp_path / "options.toml", tmp_path / "train.json"
    file.write_text(
        f'data = "{cells}/train.npz"\nlimit = 12\nepochs = 5\nlearning_rate = 0.01\nmixed_precision = true\n'
    )
    words = ["--config", file, "--epochs", 1, "--out", tmp_path / "run", "--json", out, *SMALL]
    assert parteq("histo", "train", *words)[0] == 0
    assert json.loads(out.read_text())["n_train"] == 12
    options = (tmp_path / "run" / "config.toml").read_text().splitlines()
    assert {"epochs = 1", "learning_rate = 0.01", "mixed_precision = true"} <= set(options)


def test_the_options_of_a_run_train_the_same_again(parteq, trained, tmp_path):
    words = ["--config", trained / "config.toml", "--out", tmp_path / "again", "--quiet"]
    assert parteq("histo", "train", *words)[0] == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch = 3", "'epoch' is no option"),
        ("epochs = 'many'", "many"),
        ("epochs = false", "options.toml: 'epochs' is no option that takes true or false"),
        ("quiet = 'yes'", "options.toml: 'quiet' is no option that takes a text or number"),
        ("device = 'meta'", "--device meta: is neither cpu nor cuda"),
        ("epochs = [1, 2]", "'epochs' is no text, number or truth value"),
        ("epochs = ", "is not TOML"),
        ("[epochs]\nlast = 3", "'epochs' is no text, number or truth value"),
        ("\x00", "is not TOML"),
    ],
)
def test_a_file_of_options_that_is_wrong(parteq, cells, tmp_path, text, reason):
    file = tmp_path / "options.toml"
    file.write_text(text)
    words = ["--config", file, "--data", cells / "train.npz", "--out", tmp_path / "run", *SMALL]
    status, printed, complaint = parteq("histo", "train", *words)
    assert (status, printed) == (2, "")
    assert reason in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["config.toml", "report.html", "checkpoints/0002/model.safetensors"])
@pytest.mark.parametrize("option", ["--out", "--json"])
def test_no_output_takes_the_place_of_a_part_of_a_run(parteq, trained, cells, part, option):
    lost, words = trained / part, ["--run", trained, "--data", cells / "test.npz"]
    before = lost.read_bytes()
    status, _, complaint = parteq("histo", "predict", *words, option, lost)
    assert (status, lost.read_bytes()) == (2, before)
    assert complaint == f"parteq: {lost}: is part of the run {trained}, and would be lost to {option}\n"


def test_results_that_cannot_be_written_are_an_error(parteq, trained, cells, tmp_path):
    words = ["--run", trained, "--data", cells / "test.npz", "--json", tmp_path / "no" / "folder.json"]
    status, _, complaint = parteq("histo", "evaluate", *words)
    assert status == 2
    assert complaint == f"parteq: {tmp_path}/no/folder.json: cannot be written: there is no folder {tmp_path}/no\n"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("run/deep/train.json", "there is no folder"),
        ("run", "is to be written by --json and by --out"),
        ("run/data.json", "is a name that the run has for its own"),
        ("run/checkpoints", "is a name that the run has for its own"),
    ],
)
def test_results_within_a_run_are_refused_before_it_is_trained(parteq, cells, tmp_path, place, reason):
    words = ["--data", cells / "train.npz", "--out", tmp_path / "run", "--json", tmp_path / place, *SMALL]
    status, _, complaint = parteq("histo", "train", *words)
    assert (status, complaint.count("\n")) == (2, 1)
    assert complaint.startswith(f"parteq: {tmp_path / place}: ")
    assert reason in complaint
    assert not (tmp_path / "run").exists()


def test_an_interrupt(parteq, cells, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupt)
    words = ["--data", cells / "train.npz", "--out", tmp_path / "run", *SMALL]
    assert parteq("histo", "train", *words) == (130, "", "parteq: interrupted\n")


def test_a_training_that_diverges(parteq, cells, tmp_path):
    words = ["--data", cells / "train.npz", "--out", tmp_path / "run", "--epochs", 2, "--learning-rate", 1e30, *SMALL]
    status, printed, complaint = parteq("histo", "train", *words)
    assert (status, printed) == (1, "")
    assert complaint.startswith("parteq: the loss is not finite")


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "pickle"])
def test_hostile_data_in_a_process_of_its_own(tmp_path, damage):
    data = tmp_path / "cells.npz"
    np.savez(data, images=np.zeros((8, 5, 5), np.uint8), labels=np.arange(8) % 2)
    if damage == "empty":
        data.write_bytes(b"")
    elif damage == "truncated":
        data.write_bytes(data.read_bytes()[:-200])
    elif damage == "text":
        data.write_text("images, labels")
    else:
        np.savez(data, images=np.array([{}] * 8, dtype=object), labels=np.arange(8) % 2)
    assert main(["histo", "train", "--data", str(data), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert not (tmp_path / "run").exists()


def test_what_is_no_file_is_not_replaced(parteq, trained, cells, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    words = ["histo", "evaluate", "--run", trained, "--data", cells / "test.npz", "--json"]
    status, _, complaint = parteq(*words, tmp_path / "pipe")
    assert (status, complaint) == (2, f"parteq: {tmp_path}/pipe: is no regular file, which could be replaced\n")
    assert parteq(*words, tmp_path / "link.json")[0] == 0
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["schema"] == 1


def test_what_a_command_reads_is_not_replaced(parteq, trained, cells, tmp_path):
    data = tmp_path / "data.npz"
    data.write_bytes((cells / "test.npz").read_bytes())
    (tmp_path / "link").symlink_to(data)
    assert parteq("histo", "evaluate", "--run", trained, "--data", data, "--json", "-")[0] == 2
    for option in ("--json", "--plot", "--turns"):
        words = ["--run", trained, "--data", data, option, tmp_path / "link"]
        status, _, complaint = parteq("histo", "evaluate", *words)
        lost = f"is read by --data, and would be lost to {option}"
        assert (status, complaint) == (2, f"parteq: {tmp_path / 'link'}: {lost}\n")
    assert data.read_bytes() == (cells / "test.npz").read_bytes()


def test_two_results_in_one_file_are_refused(parteq, trained, cells, tmp_path):
    out = tmp_path / "out"
    words = ["--run", trained, "--data", cells / "test.npz", "--out", out, "--json", out]
    status, _, complaint = parteq("histo", "predict", *words)
    assert (status, complaint) == (2, f"parteq: {out}: is to be written by --json and by --out\n")


def test_a_file_of_options_names_known_ones(parteq, tmp_path):
    (tmp_path / "options.toml").write_text("foo = 3\n")
    status, _, complaint = parteq("histo", "train", "--config", tmp_path / "options.toml")
    assert (status, complaint) == (2, f"parteq: {tmp_path}/options.toml: 'foo' is no option of this command\n")
    status, _, complaint = parteq("histo", "train", "--config")
    assert (status, complaint) == (2, "parteq: --config: needs the name of a file\n")


def test_messages_are_not_said_twice(parteq, trained, cells, monkeypatch):
    """Packages that export networks give the root logger a handler, as `logging.basicConfig` does."""
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler()])
    status, _, complaint = parteq("histo", "evaluate", "--run", trained, "--data", cells / "train.npz")
    assert (status, complaint.count("the run was trained on")) == (0, 1)


def test_warnings_are_not_repeated(capsys):
    """As of a file that is read twice; and those of others are not said."""
    with _messages(quiet=False):
        for text, module in (("one", "parteq.x"), ("one", "parteq.y"), ("two", "parteq.x"), ("three", "numpy")):
            warnings.warn_explicit(text, UserWarning, "file", 1, module=module)
        for text in ("four", "four"):
            logging.getLogger("parteq.x").warning(text)
        for text in ("epoch", "epoch"):
            logging.getLogger("parteq.x").info(text)
    assert capsys.readouterr().err == "parteq: one\nparteq: two\nfour\nepoch\nepoch\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["histo", "trian", "--data", "x"], "no command 'histo trian': 'histo train'? parteq histo lists them"),
        (["cryoem", "foo"], "no command 'cryoem foo': parteq cryoem lists them"),
        (["trian"], "no command 'trian': parteq --help lists them"),
    ],
)
def test_commands_that_are_none_are_one_line(parteq, words, said):
    assert parteq(*words) == (2, "", f"parteq: {said}\n")
