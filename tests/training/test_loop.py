"A killed run ends as if nothing had happened; the best epoch is kept; a wrong checkpoint, folder or parameter is refused; two processes do the work of one."
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import medgan.training.loop as training
from medgan.cdcgan import train_cdcgan
from medgan.data.images import ImageData
from medgan.core.checks import ParameterError, check_number, check_out_dir, check_parameters
from medgan.training.checkpoints import CheckpointError, checkpoints, load_checkpoint, same_state, save_checkpoint
from medgan.training.loop import EMA, NonFiniteLoss, Trainer, set_seed
from medgan.training.selection import keep_best

CONFIG = dict(size=32, classes=["a", "b", "c"], z_dim=8, width=4, slope=.2, momentum=.1, batch_norm=True, spectral=True, gp=10., lr=2e-4, beta1=.5,
              batch_size=8, precision="no", seed=0)
EPOCHS, OFTEN = 2, dict(log_every=2, checkpoint_every=3, sample_every=4, progress="")       # 10 steps; rows, checkpoints and samples at different ones

def toy_data(seed=0, n=40):
    "Random images in memory."
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    table = pd.DataFrame(dict(id=[f"{i:03d}" for i in range(n)], dx=[CONFIG["classes"][c] for c in label], label=label, group=range(n)))
    return ImageData("toy", rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), None, table, CONFIG["classes"], f"toy-{seed}")

def train(out_dir, resume=False, epochs=EPOCHS, data=None, **changes):
    return train_cdcgan(data or toy_data(), CONFIG | changes, epochs, str(out_dir), resume, **OFTEN)

def contents(folder):
    "Relative path -> bytes of all files."
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}

def rows(out_dir):
    "The rows of stats.jsonl without the one column that is a time."
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in (Path(out_dir)/"stats.jsonl").read_text().splitlines()]

# ---- killed and gone on. Runs are processes of their own, forked from one that has imported torch but not used it

def die(): os.kill(os.getpid(), signal.SIGKILL)

class HalfFile:
    "Stands for a file in which the process dies half-way through a write."
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, data):
        self.file.write(data[:len(data)//2])
        self.file.flush()
        die()

def arm(moment, n, out_dir):
    "Make this process die at the n-th time (from 0) that it comes to a moment; n = None only counts them."
    seen = [0]
    def now():
        seen[0] += 1
        return seen[0] - 1 == n
    if moment == "update":                                                   # between D's step and G's, or between two steps
        update = Trainer.update
        Trainer.update = lambda *args: die() if now() else update(*args)
    if moment in ("checkpoint", "row"):                                      # half of it is written
        mode = dict(checkpoint="wb", row="a")[moment]
        training.open = lambda path, m="r", *a: HalfFile(open(path, m, *a)) if m == mode and now() else open(path, m, *a)
    if moment == "file":                                                     # any file of the run is made, emptied, renamed or removed
        inside = []
        def hook(event, args):
            if inside or event not in ("open", "os.rename", "os.remove", "os.mkdir") or not str(args[0]).startswith(str(out_dir)): return
            if event == "open" and (os.path.isdir(args[0]) or not (isinstance(args[1], str) and set(args[1]) & set("wa+x"))): return
            if now():
                inside.append(True)
                if event == "open" and "w" in args[1]: open(args[0], "wb").close()       # dies after the old content has gone
                die()
        sys.addaudithook(hook)
    return seen

def _child(out_dir, resume, moment, n):
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seen = arm(moment, n, out_dir)
    train(out_dir, resume)
    if n is None and moment: (Path(out_dir).parent/"moments").write_text(str(seen[0]))

@pytest.fixture(scope="module")
def run():
    "run(out_dir, resume, moment, n) -> exit code of a process that trains."
    if "forkserver" not in multiprocessing.get_all_start_methods(): pytest.skip("needs forkserver")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medgan.cdcgan", "medgan.data.images", "pytest", "torch._dynamo"])    # the last: optimisers load it late
    def run(out_dir, resume=False, moment="", n=None):
        process = context.Process(target=_child, args=(str(out_dir), resume, moment, n))
        process.start()
        process.join(120)
        return process.exitcode
    return run

@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    "The folder of a run that nobody killed, and how many moments at its files it has."
    out_dir = tmp_path_factory.mktemp("undisturbed")/"run"
    assert run(out_dir, moment="file") == 0
    return out_dir, int((out_dir.parent/"moments").read_text())

def assert_same_run(out_dir, other):
    "Weights, optimisers, configuration, statistics, samples and the list of files (an old checkpoint may have stayed)."
    ours, theirs = checkpoints(out_dir), checkpoints(other)
    kept = [p.name for p in ours[:-len(theirs)]]
    assert [p.name for p in ours[-len(theirs):]] == [p.name for p in theirs] and len(kept) <= 1
    for a, b in zip(ours[-len(theirs):], theirs): assert same_state(load_checkpoint(a), load_checkpoint(b)), a.name
    assert rows(out_dir) == rows(other)
    a, b = contents(out_dir), contents(other)
    assert a.keys() - kept == b.keys()                                       # nothing unfinished is left
    assert [n for n in a if n.endswith(".jpg") and a[n] != b[n]] == []

KILLED = -signal.SIGKILL

def test_same_seed_same_run(run, undisturbed, tmp_path):
    "Catches a run that is not determined by its seed: all tests below would be luck."
    assert run(tmp_path/"run") == 0
    assert_same_run(tmp_path/"run", undisturbed[0])
    assert len(rows(tmp_path/"run")) >= 5 and len(checkpoints(tmp_path/"run")) == 2 and rows(tmp_path/"run")[-1]["step"] == 10

@pytest.mark.parametrize("moment, n", [("update", 1), ("update", 9), ("update", 18), ("checkpoint", 0), ("checkpoint", 1), ("checkpoint", 3), ("row", 2), ("row", 3)])
def test_killed(run, undisturbed, tmp_path, moment, n):
    "Catches state that a checkpoint lacks (optimiser, step, spectral norm, order of the data), one that is written in place, and rows lost or doubled."
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

def test_more_epochs(undisturbed, tmp_path):
    "Catches a resumed run that begins its epochs anew: 1 epoch, then on to 2, is 2 epochs."
    trainer = train(tmp_path/"run", epochs=1)
    assert trainer.step == 5 and rows(tmp_path/"run")[-1]["epoch"] == 1
    trainer = train(tmp_path/"run", resume=True)
    state, _ = load_checkpoint(checkpoints(undisturbed[0])[-1])
    assert trainer.step == 10 and trainer.images == 80
    for name, module in trainer.modules.items():
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, state["modules"][name][key], rtol=1e-4, atol=1e-5)     # other number of threads
    assert [r["step"] for r in rows(tmp_path/"run")] == sorted({r["step"] for r in rows(tmp_path/"run")})

def test_finished_run_resumed(undisturbed, tmp_path):
    "Catches a resumed run that does one step too many."
    shutil.copytree(undisturbed[0], tmp_path/"run")
    trainer = train(tmp_path/"run", resume=True)
    assert trainer.step == 10 and len(trainer.history) == len(rows(undisturbed[0])) and trainer.history.step.iloc[-1] == 10
    assert_same_run(tmp_path/"run", undisturbed[0])

class Counter:
    "State of a step that is no network, such as ADA's p."
    def __init__(self): self.p = 0.
    def state_dict(self): return dict(p=self.p)
    def load_state_dict(self, state): self.p = state["p"]

def toy_run(out_dir, epochs, resume=False, bad_step=None, **options):
    "A network with batch norm and dropout, momentum, EMA and a state of its own."
    set_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 4), nn.BatchNorm1d(4), nn.Dropout(.5), nn.Linear(4, 1))
    opt, counter = torch.optim.AdamW(net.parameters(), 1e-3), Counter()
    trainer = Trainer(dict(net=net), dict(opt=opt), seed=3, out_dir=str(out_dir), config=dict(name="toy"), resume=resume, progress="", log_every=2,
                      ema=dict(net=EMA(net, halflife=20, rampup=.5)), state=dict(counter=counter), **options)
    def step(batch):
        x = batch["image"] + counter.p*torch.randn_like(batch["image"])
        loss = (net(x)[:, 0] - batch["label"]).square().mean()
        if trainer.step + 1 == bad_step: loss = loss*float("nan")
        trainer.update(opt, loss)
        counter.p += .01
        return dict(loss=loss, p=counter.p)
    trainer.fit(step, toy_data(), epochs, 8)
    return trainer

def test_resume_restores_everything(tmp_path):
    "Catches averages, optimiser moments, dropout's random numbers and the step's own state that a resumed run starts anew."
    toy_run(tmp_path/"a", 2)
    toy_run(tmp_path/"b", 1)
    toy_run(tmp_path/"b", 2, resume=True)
    (a, _), (b, _) = (load_checkpoint(checkpoints(tmp_path/x)[-1]) for x in "ab")
    assert same_state(a, b)
    assert a["extra"]["counter"]["p"] == pytest.approx(.1) and a["images"] == 80
    assert not same_state(a["ema"]["net"], a["modules"]["net"])
    assert not same_state(a["modules"], load_checkpoint(checkpoints(tmp_path/"a")[0])[0]["modules"])

def test_same_state():
    "Catches a comparison that finds everything equal: it would make all tests above pass."
    state = lambda x=1., y=2: dict(a=[torch.tensor([x, 2.])], b=y, c=None)
    assert same_state(state(), state())
    assert not same_state(state(), state(x=1.0000001)) and not same_state(state(), state(y=3))
    assert not same_state(torch.zeros(2), torch.zeros(2).double()) and not same_state(torch.zeros(2), torch.zeros(3)) and not same_state([1], [1, 2])
    assert not same_state(dict(a=1), dict(b=1)) and not same_state(torch.zeros(2), None) and not same_state(dict(a=1), dict(a=1, b=2))

# ---- the best epoch

def fake_epochs(net, scores, seen):
    "Every epoch changes weights and batch norm's averages and count; `seen` receives them."
    for epoch, score in enumerate(scores, 1):
        net(torch.full((4, 2), float(epoch)))
        nn.init.constant_(net.weight, epoch)
        seen.append(deepcopy(net.state_dict()))
        yield dict(epoch=epoch, score=score)

def test_best_epoch_is_kept():
    "Catches the last epoch's weights, a buffer that is forgotten, a tie that goes to the later one, a patience off by one, an epoch too many, and scores that must be positive."
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores, (epochs, patience) = rng.integers(-4, 3, 12).tolist(), rng.integers(1, 11, 2).tolist()
        net, seen = nn.BatchNorm1d(2), []
        history = keep_best(net, fake_epochs(net, scores, seen), "score", epochs, patience)
        n = next(n for n in range(1, epochs + 1) if n == epochs or n - 1 - np.argmax(scores[:n]) == patience)       # argmax is the first of equal ones
        assert history.to_dict("list") == dict(epoch=list(range(1, n + 1)), score=scores[:n]) and len(seen) == n
        assert same_state(net.state_dict(), seen[np.argmax(scores[:n])])

def test_best_epoch_is_read(tmp_path):
    "Catches a net that is trained again or read for another training, a file that changes, and one that earlier or later runs cannot read."
    path, config, seen = tmp_path/"new"/"net.safetensors", dict(lr=.1, net="net"), []
    net, other, best = nn.BatchNorm1d(2), nn.BatchNorm1d(2), lambda net, rows, **changes: keep_best(net, rows, "score", 3, 3, "", str(path), config | changes)
    history = best(net, fake_epochs(net, [.1, .3, .2], seen))
    state, stored = load_checkpoint(path)
    assert same_state(state, dict(net=seen[1], history=history.to_dict("records"))) and stored == config
    before, untouched = contents(tmp_path), fake_epochs(other, [1.], seen)
    assert best(other, untouched).equals(history) and same_state(other.state_dict(), seen[1])
    with pytest.raises(CheckpointError, match="net.safetensors is of another run: lr was 0.1, is 0.2"): best(nn.BatchNorm1d(2), untouched, lr=.2)
    with pytest.raises(CheckpointError, match="BatchNorm1d is another architecture"): best(nn.BatchNorm1d(3), untouched)
    assert len(seen) == 3 and next(untouched)["epoch"] == 1 and contents(tmp_path) == before
    for _ in range(2): keep_best(net, fake_epochs(net, [1.], seen), "score", 1, 1, keep_in=str(tmp_path/"bare"))        # without a config, written and read
    assert len(seen) == 5

def test_unfinished_training_is_not_kept(tmp_path):
    "Catches a file of a training that broke off: it would be read as a finished one."
    def rows():
        yield dict(score=.5)
        raise NonFiniteLoss
    with pytest.raises(NonFiniteLoss): keep_best(nn.Linear(1, 1), rows(), "score", 5, 5, keep_in=str(tmp_path/"net.safetensors"))
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("name, value", [("epochs", 0), ("epochs", 1.5), ("epochs", "2"), ("patience", 0), ("patience", -1), ("patience", None)])
def test_bad_patience(name, value):
    "Catches a training that never ends, or finds out after its first epoch."
    seen, net = [], nn.BatchNorm1d(2)
    with pytest.raises(ParameterError, match=f"{name}={value!r}"): keep_best(net, fake_epochs(net, [1.]*9, seen), "score", **dict(epochs=3, patience=3) | {name: value})
    assert not seen

# ---- refused

@pytest.mark.parametrize("changes, parts", [
    (dict(width=8), ["width was 4, is 8"]),
    (dict(lr=1e-3), ["lr was 0.0002, is 0.001"]),
    (dict(batch_norm=False, gp=0.), ["batch_norm was True, is False", "gp was 10.0, is 0.0"]),
    (dict(seed=1), ["seed was 0, is 1"]),
    (dict(batch_size=4), ["batch_size was 8, is 4"]),
    (dict(data=toy_data(1)), ["fingerprint was 'toy-0', is 'toy-1'"])], ids=["architecture", "lr", "regularisers", "seed", "batch_size", "data"])
def test_resume_of_another_run(undisturbed, changes, parts):
    "Catches a run that goes on with weights, data or parameters of another one; nothing of the old run is touched."
    before = contents(undisturbed[0])
    with pytest.raises(CheckpointError) as caught: train(undisturbed[0], resume=True, **changes)
    assert all(p in str(caught.value) for p in [*parts, "checkpoint-00000010.safetensors"]) and "\n" not in str(caught.value)
    assert contents(undisturbed[0]) == before

def test_resume_of_another_network(tmp_path):
    "Catches torch's page of names where the configuration does not tell that the network is another one."
    def trainer(n, resume=False):
        net = nn.Linear(3, n)
        return Trainer(dict(net=net), dict(opt=torch.optim.Adam(net.parameters())), out_dir=str(tmp_path), resume=resume, progress="")
    trainer(2).save_now()
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"net is another architecture than the checkpoint's: 2 tensors differ, the first is weight: here \(4, 3\), there \(2, 3\)"):
        trainer(4, resume=True)
    assert contents(tmp_path) == before

def test_run_is_not_overwritten(undisturbed):
    "Catches a forgotten resume=True that costs a run."
    before = contents(undisturbed[0])
    with pytest.raises(ParameterError, match="holds a run already .*resume=True"): train(undisturbed[0])
    assert contents(undisturbed[0]) == before

class Evil:
    "Makes a file when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return (open, (str(self.path), "w"))

@pytest.mark.parametrize("damage", ["half", "no end", "empty", "garbage", "foreign", "pickle"])
def test_broken_checkpoint(undisturbed, tmp_path, damage):
    "Catches half a checkpoint that is loaded, another program's weights, and anything that runs code."
    shutil.copytree(undisturbed[0], tmp_path/"run")
    path = checkpoints(tmp_path/"run")[-1]
    data = path.read_bytes()
    if damage == "foreign": save_file({"weight": torch.zeros(2)}, path, metadata=dict(format="pt"))
    else: path.write_bytes({"half": data[:len(data)//2], "no end": data[:-1], "empty": b"", "garbage": bytes(range(256))*40, "pickle": pickle.dumps(Evil(tmp_path/"ran"))}[damage])
    before = contents(tmp_path/"run")
    with pytest.raises(CheckpointError) as caught: train(tmp_path/"run", resume=True)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and ("no medgan checkpoint" if damage == "foreign" else "remove it to go on from the one before") in message
    assert contents(tmp_path/"run") == before and not (tmp_path/"ran").exists()

def test_removed_checkpoint(run, undisturbed, tmp_path):
    "Catches that the advice of the error above does not help."
    shutil.copytree(undisturbed[0], tmp_path/"run")
    checkpoints(tmp_path/"run")[-1].unlink()
    assert run(tmp_path/"run", True) == 0
    state, other = (load_checkpoint(checkpoints(d)[-1])[0] for d in (tmp_path/"run", undisturbed[0]))
    assert same_state(state, other) and rows(tmp_path/"run") == rows(undisturbed[0])

def test_checkpoint_missing(tmp_path):
    "Catches a FileNotFoundError of another kind than the other errors."
    with pytest.raises(CheckpointError, match="is not there"): load_checkpoint(tmp_path/"checkpoint.safetensors")

@pytest.mark.parametrize("state", [dict(a=object()), dict(a=np.zeros(2)), dict(a={1, 2})])
def test_state_that_cannot_be_kept(tmp_path, state):
    "Catches a checkpoint that loses a part of the state in silence, and a half-written file."
    with pytest.raises(TypeError, match="a checkpoint holds tensors, numbers and text"): save_checkpoint(tmp_path/"checkpoint.safetensors", state, {})
    assert not list(tmp_path.iterdir())

def test_state_comes_back(tmp_path):
    "Catches keys that become text (the optimiser's are numbers), lost dtypes, shared and non-contiguous tensors."
    x = torch.arange(6.).reshape(2, 3)
    state = dict(numbers={0: 1.5, 1: None}, text="é", flag=True, deep=[dict(x=x, again=x, turned=x.T)], scalar=torch.tensor(3), empty=torch.zeros(0, 2),
                 half=x.bfloat16(), tiny=5e-324)
    save_checkpoint(tmp_path/"c", state, dict(a=1))
    back, config = load_checkpoint(tmp_path/"c")
    assert same_state(state, back) and config == dict(a=1) and [p.name for p in tmp_path.iterdir()] == ["c"]

@pytest.mark.parametrize("where", ["file", "file/below/it"])
def test_out_dir_is_file(tmp_path, where):
    "Catches a run that finds out after its first epoch that it cannot be kept."
    (tmp_path/"file").write_text("mine")
    for refuse in (lambda: check_out_dir(str(tmp_path/where)), lambda: train(tmp_path/where)):
        with pytest.raises(ParameterError, match="out_dir=.*is a file; name a folder"): refuse()
    assert contents(tmp_path) == {"file": b"mine"}

def test_out_dir_read_only(tmp_path):
    "The same for a folder without permission."
    (tmp_path/"closed").mkdir(mode=0o500)
    if os.access(tmp_path/"closed", os.W_OK): pytest.skip("this user may write everywhere")
    with pytest.raises(ParameterError, match="out_dir=.*cannot be written"): train(tmp_path/"closed"/"run")
    assert not list((tmp_path/"closed").iterdir())

def test_checks_create_nothing(tmp_path):
    "Catches a check that leaves an empty folder."
    check_out_dir(str(tmp_path/"a"/"b"))
    assert not list(tmp_path.iterdir())

GOOD = dict(sizes=(32, 64, 128), size=32, epochs=2., batch_size=64, lr=2e-4, seed=0, out_dir="", resume=False)
NAN, INF = float("nan"), float("inf")
BAD = [*[("size", v, "must be one of 32, 64, 128") for v in (0, -32, 33, 64.0, NAN, INF, "64", True, None, [64])],
       *[("epochs", v, "must be a number above 0 to 1e+06") for v in (0, -1, NAN, INF, -INF, "2", True, None, 1e7, [1])],
       *[("batch_size", v, "must be a whole number from 2 to 65536") for v in (0, -64, 1, 2.5, NAN, INF, "64", True, None, 10**6, 10**400)],
       *[("lr", v, "must be a number above 0 to 1") for v in (0, -2e-4, NAN, INF, "2e-4", True, None, 2)],
       *[("seed", v, "must be a whole number from 0 to") for v in (-1, .5, NAN, INF, "0", True, None, 2**31)],
       *[("resume", v, "must be one of True, False") for v in (1, 0, "yes", None, NAN)],
       *[("out_dir", v, "") for v in (5, True, 1.5)]]          # papermill reads `-p out_dir 5` as a number

@pytest.mark.parametrize("name, value, allowed", BAD, ids=[f"{n}={str(v)[:8]!r}" for n, v, _ in BAD])
def test_bad_parameters(name, value, allowed, tmp_path, monkeypatch):
    "Catches a value that slips through or ends in a TypeError: the message has the parameter, the value and what is allowed."
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError) as caught: check_parameters(**GOOD | {name: value})
    assert f"{name}={value!r}: " in str(caught.value) and allowed in str(caught.value)
    assert not list(tmp_path.iterdir())

def test_good_parameters(tmp_path):
    "Catches a check that refuses too much."
    check_parameters(**GOOD)
    check_parameters(**GOOD | dict(epochs=.01, batch_size=2, lr=1, seed=2**31 - 1, size=128, out_dir=str(tmp_path/"new"), resume=True))
    assert check_number("n", 3.0, 0, whole=True) == 3 and isinstance(check_number("n", 3.0, 0, whole=True), int)

def test_resume_without_folder():
    "Catches resume=True that starts a new run in silence."
    with pytest.raises(ParameterError, match="resume=True: out_dir is empty"): check_parameters(**GOOD | dict(resume=True))

def test_batch_larger_than_data():
    "Catches an epoch of zero steps."
    with pytest.raises(ParameterError, match="batch_size=64: the training set has only 40 images"): train("", batch_size=64)

def test_non_finite_loss(tmp_path):
    "Catches a NaN that is trained on, logged or saved: the run stops before its next checkpoint and names step, term and the last good one."
    with pytest.raises(NonFiniteLoss, match=r"step 8: .*loss=nan.*checkpoint-00000005"): toy_run(tmp_path, 2, bad_step=8)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000005.safetensors"]
    assert all(np.isfinite(list(r.values())).all() for r in rows(tmp_path))

def test_tensorboard(tmp_path):
    "Catches a switch that does nothing: the terms are in the event file."
    toy_run(tmp_path, 1, tensorboard=True)
    events, = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()

# ---- two processes

TWO = """
import sys
import numpy as np, torch
from torch import nn
from medgan.training.loop import EMA, Trainer, set_seed

class Data:
    "x and 2x - 1, in 64 rows."
    x = torch.linspace(-1, 1, 64*5).reshape(5, 64).T.contiguous()
    def __len__(self): return 64
    def read(self, rows, device): return dict(x=self.x[rows].to(device))

def main(out_dir):
    torch.set_num_threads(1)
    set_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 5))
    opt = torch.optim.SGD(net.parameters(), .05, momentum=.9)     # Adam would not see gradients that are added instead of averaged
    trainer = Trainer(dict(net=net), dict(opt=opt), out_dir=out_dir, ema=dict(net=EMA(net, 100)), progress="", log_every=4)
    def step(batch):
        loss = (net(batch["x"]) - 2*batch["x"] + 1).square().mean()
        trainer.update(opt, loss)
        return dict(loss=loss)
    trainer.fit(step, Data(), 3, 16)
    flat = lambda m: torch.cat([p.detach().flatten() for p in m.parameters()]).numpy()
    np.savez(f"{out_dir}-{trainer.rank}.npz", net=flat(net), ema=flat(trainer.ema["net"].average), world=trainer.world, images=trainer.images)
    if trainer.world > 1: trainer.accelerator.end_training()       # gloo's threads may abort a process that just leaves

if __name__ == "__main__": main(sys.argv[1])
"""

def test_two_processes(tmp_path):
    "Catches gradients that are not averaged, ranks that read the same rows, and two processes that write one folder: on CPU (gloo)."
    (tmp_path/"two.py").write_text(TWO)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--nnodes", "1", "--master_addr", "127.0.0.1", "--master_port", str(port),
              "two.py", "both"]              # accelerate launch --cpu starts one process only where there is no MPI
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=240,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr[-3000:]
    scope = {"__name__": "two"}
    exec(TWO, scope)
    before = torch.get_num_threads()
    try: scope["main"](str(tmp_path/"one"))
    finally: torch.set_num_threads(before)
    one, *both = (np.load(tmp_path/f"{name}.npz") for name in ("one-0", "both-0", "both-1"))
    assert one["world"] == 1 and all(b["world"] == 2 for b in both) and all(b["images"] == one["images"] == 192 for b in both)
    for key in ("net", "ema"):
        assert np.array_equal(both[0][key], both[1][key])
        assert np.abs(both[0][key] - one[key]).max() < 1e-6
    assert [r["step"] for r in rows(tmp_path/"both")] == [r["step"] for r in rows(tmp_path/"one")]
    assert [p.name for p in checkpoints(tmp_path/"both")] == [p.name for p in checkpoints(tmp_path/"one")]
