"A run's folder: statistics that are whole or refused, one run at a time, and a disk that is full."
from pathlib import Path

import pytest
from small_runs import FullDisk, contents, rows, toy_data, toy_run, toy_trainer

from medgan.core.checks import ParameterError
from medgan.training.checkpoints import CheckpointError

def cut_first_row(path): path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
def cut_last_row(path): path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
def double_row(path): path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])
def turn_a_row(path): path.write_bytes(path.read_bytes().replace(b'"step": 4', b'"step\x80: 4'))

def empty(path): path.write_bytes(b"")

@pytest.mark.parametrize("damage", [Path.unlink, empty, cut_first_row, cut_last_row, double_row, turn_a_row],
                         ids=["gone", "emptied", "first row gone", "last row gone", "a row twice", "a turned bit"])
def test_damaged_statistics(tmp_path, damage):
    "Catches statistics that lack rows, or have some twice, and are gone on with in silence: every curve of the run would be wrong."
    toy_run(tmp_path, 1)
    damage(tmp_path/"stats.jsonl")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="stats.jsonl is damaged: its rows up to step 5 do not follow each other"):
        toy_run(tmp_path, 2, resume=True)
    assert contents(tmp_path) == before

@pytest.mark.parametrize("rubbish", [b"\0"*300, b'{"step": 3, "los}\n', b'{"a": 3}\n', b"[1, 2]\n", b'{"step": 7, "loss"'],
                         ids=["zeros", "half a number", "no step", "a list", "half a row"])
def test_rubbish_behind_the_statistics(tmp_path, rubbish):
    "Catches a run that cannot go on after a power cut, which leaves anything behind the rows that were written."
    toy_run(tmp_path/"a", 2)
    toy_run(tmp_path/"b", 1)
    with open(tmp_path/"b"/"stats.jsonl", "ab") as file: file.write(rubbish)
    toy_run(tmp_path/"b", 2, resume=True)
    assert rows(tmp_path/"b")[-1] == rows(tmp_path/"a")[-1] and [r["step"] for r in rows(tmp_path/"b")] == [2, 4, 5, 6, 8, 10]

def test_two_runs_in_one_folder(tmp_path):
    "Catches two runs that mix their checkpoints and statistics in one folder, at once or one after the other."
    first = toy_trainer(tmp_path, log_every=1)
    with first.folder.locked(), pytest.raises(ParameterError, match="out_dir=.*another run is writing here; name another folder"):
        toy_trainer(tmp_path)
    toy_run(tmp_path, 1)
    before = contents(tmp_path)
    with pytest.raises(ParameterError, match="another run has written here meanwhile"): first.fit(first.own_step, toy_data(), 1, 8)
    assert contents(tmp_path) == before
    assert toy_run(tmp_path, 2, resume=True).step == 10                     # the lock is free again

@pytest.mark.parametrize("full, module, message", [("checkpoint", "checkpoints", "checkpoint-00000010.safetensors could not be written"),
                                                   ("row", "run_folder", "stats.jsonl could not be written")])
def test_full_disk(tmp_path, monkeypatch, full, module, message):
    "Catches an error that does not say where there is no room, a half-written file, and a last good checkpoint that is lost."
    toy_run(tmp_path, 1)
    before = contents(tmp_path)
    mode, real = dict(checkpoint="wb", row="a")[full], open
    trainer = toy_trainer(tmp_path, resume=True)
    with monkeypatch.context() as patched:
        patched.setattr(f"medgan.training.{module}.open", lambda p, m="r", *a: (FullDisk if m == mode else real)(p, m), raising=False)
        with pytest.raises(CheckpointError, match=f"{tmp_path}: {message}.*No space left.*checkpoint-00000005.*resume=True"):
            trainer.fit(trainer.own_step, toy_data(), 2, 8)
    assert {name: data for name, data in contents(tmp_path).items() if name != "stats.jsonl"} == {
        name: data for name, data in before.items() if name != "stats.jsonl"}
    assert toy_run(tmp_path, 2, resume=True).step == 10
