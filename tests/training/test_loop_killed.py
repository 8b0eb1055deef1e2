"A run killed or told to stop at any moment goes on and ends as if nothing had happened: weights, statistics, samples, files."
import shutil
import signal

import pytest
from small_runs import KILLED, assert_same_run, rows

from medgan.training.checkpoints import checkpoints, load_checkpoint, same_state

def test_same_seed_same_run(run, undisturbed, tmp_path):
    "Catches a run that is not determined by its seed: all tests below would be luck."
    assert run(tmp_path/"run") == 0
    assert_same_run(tmp_path/"run", undisturbed[0])
    assert len(rows(tmp_path/"run")) >= 5 and len(checkpoints(tmp_path/"run")) == 2 and rows(tmp_path/"run")[-1]["step"] == 10

@pytest.mark.parametrize("moment, n", [("update", 1), ("update", 9), ("update", 18), ("checkpoint", 0), ("checkpoint", 1),
                                       ("checkpoint", 3), ("row", 2), ("row", 3)])
def test_killed(run, undisturbed, tmp_path, moment, n):
    """Catches state that a checkpoint lacks (optimiser, step, spectral norm, order of the data), one that is written in place,
    and rows lost or doubled."""
    assert run(tmp_path/"run", False, moment, n) == KILLED, "the run never came to that moment"
    assert run(tmp_path/"run", True) == 0
    assert_same_run(tmp_path/"run", undisturbed[0])

def test_killed_at_every_file(run, undisturbed, tmp_path):
    "Catches any order of writing, renaming and removing files in which a kill loses something; every such moment is tried."
    assert undisturbed[1] > 15
    for n in range(undisturbed[1]):
        assert run(tmp_path/str(n), False, "file", n) == KILLED
        assert run(tmp_path/str(n), True) == 0, f"moment {n}: cannot go on"
        assert_same_run(tmp_path/str(n), undisturbed[0])
        shutil.rmtree(tmp_path/str(n))

def test_killed_while_resuming(run, undisturbed, tmp_path):
    "Catches a second kill, while the run is being reopened: statistics emptied before they are written again."
    assert run(tmp_path/"first", False, "update", 15) == KILLED              # after a checkpoint, rows and a sample
    for n in range(4):
        out_dir = tmp_path/str(n)
        shutil.copytree(tmp_path/"first", out_dir)
        assert run(out_dir, True, "file", n) == KILLED
        assert run(out_dir, True) == 0
        assert_same_run(out_dir, undisturbed[0])

def test_removed_checkpoint(run, undisturbed, tmp_path):
    "Catches that the advice given for a broken checkpoint (remove it, go on from the one before) does not help."
    shutil.copytree(undisturbed[0], tmp_path/"run")
    checkpoints(tmp_path/"run")[-1].unlink()
    assert run(tmp_path/"run", True) == 0
    state, other = (load_checkpoint(checkpoints(d)[-1])[0] for d in (tmp_path/"run", undisturbed[0]))
    assert same_state(state, other) and rows(tmp_path/"run") == rows(undisturbed[0])

@pytest.mark.parametrize("name, n, step", [("SIGTERM", 0, 1), ("SIGTERM", 9, 5), ("SIGINT", 12, 7), ("SIGTERM", 15, 8), ("SIGINT", 19, 10)])
def test_told_to_stop(run, undisturbed, tmp_path, name, n, step):
    """Catches a run that dies in the middle of a step when a cluster or Ctrl-C ends it, steps that are lost, a row of statistics that is
    cut in two, and a signal that is swallowed."""
    code = -signal.SIGTERM if name == "SIGTERM" else 1                       # a KeyboardInterrupt ends a process with 1
    assert run(tmp_path/"run", False, name, n) == code
    assert checkpoints(tmp_path/"run")[-1].stem == f"checkpoint-{step:08d}"
    assert run(tmp_path/"run", True) == 0
    assert_same_run(tmp_path/"run", undisturbed[0])

def test_stopped_twice(run, undisturbed, tmp_path):
    "Catches a run that cannot go on where a stopped one was stopped again before its next row."
    assert run(tmp_path/"run", False, "SIGTERM", 12) == run(tmp_path/"run", True, "SIGTERM", 0) == -signal.SIGTERM
    assert [p.stem[-2:] for p in checkpoints(tmp_path/"run")] == ["07", "08"]
    assert run(tmp_path/"run", True) == 0
    assert_same_run(tmp_path/"run", undisturbed[0])
