"The loop: a run goes on as itself or not at all, keeps all that its steps depend on, takes up a state in memory, and stops at nonsense."
import os
import shutil
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from small_runs import assert_same_run, contents, rows, toy_data, toy_run, toy_trainer, train
from torch import nn

from medgan.core.checks import ParameterError
from medgan.data.splits import group_codes
from medgan.training.checkpoints import CheckpointError, checkpoints, load_checkpoint, same_state
from medgan.training.loop import EMA, NonFiniteLoss, Trainer, mixed_seed

# ---- going on

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

@pytest.mark.parametrize("changes, parts", [
    (dict(width=8), ["width was 4, is 8"]),
    (dict(lr=1e-3), ["lr was 0.0002, is 0.001"]),
    (dict(batch_norm=False, gp=0.), ["batch_norm was True, is False", "gp was 10.0, is 0.0"]),
    (dict(seed=1), ["seed was 0, is 1"]),
    (dict(batch_size=4), ["batch_size was 8, is 4"]),
    (dict(data=toy_data(1)), ["fingerprint was 'toy-0', is 'toy-1'"])],
    ids=["architecture", "lr", "regularisers", "seed", "batch_size", "data"])
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
    message = r"net is another architecture than the checkpoint's: 2 tensors differ, the first is weight: here \(4, 3\), there \(2, 3\)"
    with pytest.raises(CheckpointError, match=message): trainer(4, resume=True)
    assert contents(tmp_path) == before

def test_run_is_not_overwritten(undisturbed):
    "Catches a forgotten resume=True that costs a run."
    before = contents(undisturbed[0])
    with pytest.raises(ParameterError, match="holds a run already .*resume=True"): train(undisturbed[0])
    assert contents(undisturbed[0]) == before

# ---- a state in memory

def goes_on(state, epochs=2, **options):
    "A fresh run that takes up a state and goes on; its final state."
    trainer = toy_trainer(**options)
    trainer.load_state_dict(state)
    trainer.fit(trainer.own_step, toy_data(), epochs, 8)
    return trainer.state_dict()

def test_state_in_memory():
    "Catches a state that is incomplete without its file, and two runs that share an optimiser's tensors after taking up one state."
    halfway, whole = toy_run("", 1).state_dict(), toy_run("", 2).state_dict()
    kept = deepcopy(halfway)
    assert same_state(goes_on(halfway), whole)
    assert same_state(halfway, kept)                                         # the first to go on has not touched it
    assert same_state(goes_on(halfway), whole)

def test_two_go_on_in_turns():
    "Catches two clients of which each trains on the other's moments: both begin with one state and step in turns."
    halfway, alone = toy_run("", 1).state_dict(), toy_run("", 2).state_dict()
    clients = [toy_trainer(), toy_trainer()]
    for client in clients: client.load_state_dict(halfway)
    for n in range(6, 11):
        for client in clients: client.fit(client.own_step, toy_data(), n/5, 8)
    assert all(same_state(client.state_dict(), alone) for client in clients)

def test_state_is_a_copy():
    "Catches a state that changes while the run that gave it goes on: a server would average the weights of another moment."
    trainer = toy_run("", 1)
    state = trainer.state_dict()
    kept = deepcopy(state)
    trainer.fit(trainer.own_step, toy_data(), 2, 8)
    assert same_state(state, kept) and not same_state(state, trainer.state_dict())

def test_salt():
    "Catches clients that draw equal noise, a salt that has no part in the seed, and one that breaks the repetition of a run."
    halfway = toy_run("", 1).state_dict()
    by_salt = {salt: goes_on(halfway, salt=salt) for salt in (0, 1, 2)}
    assert same_state(by_salt[0], goes_on(halfway)) and same_state(by_salt[1], goes_on(halfway, salt=1))
    for a, b in ((0, 1), (0, 2), (1, 2)): assert not same_state(by_salt[a]["modules"], by_salt[b]["modules"])

def test_salt_is_no_part_of_the_run(tmp_path):
    "Catches a checkpoint that another client, or the server, may not take up."
    toy_run(tmp_path, 1, salt=3)
    assert toy_run(tmp_path, 2, salt=4, resume=True).step == 10

# ---- refused

def test_batch_larger_than_data():
    "Catches an epoch of zero steps."
    with pytest.raises(ParameterError, match="batch_size=64: the training set has only 40 images"): train("", batch_size=64)

def test_non_finite_loss(tmp_path):
    "Catches a NaN that is trained on, logged or saved: the run stops before its next checkpoint, and names step, term and the last good."
    with pytest.raises(NonFiniteLoss, match=r"step 8: .*loss=nan.*checkpoint-00000005"): toy_run(tmp_path, 2, bad_step=8)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000005.safetensors"]
    assert all(np.isfinite(list(r.values())).all() for r in rows(tmp_path))

@pytest.mark.parametrize("option, message", [(dict(log_every=0), "log_every=0: must be a whole number from 1"),
                                             (dict(log_evry=3), "log_evry: no such parameter; do you mean log_every?"),
                                             (dict(salt=-1), "salt=-1"),
                                             (dict(precision="fp8"), "precision='fp8': must be one of 'no', 'bf16'")])
def test_bad_options(option, message):
    "Catches an option that is taken for another one, or found in the middle of a run."
    with pytest.raises(ParameterError) as caught: toy_trainer(**option)
    assert message in str(caught.value)

def test_tensorboard(tmp_path):
    "Catches a switch that does nothing: the terms are in the event file."
    toy_run(tmp_path, 1, tensorboard=True)
    events, = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()

# ---- what each step and each call does beside

def test_average_of_each_kind_of_number():
    "Catches an average that leaves a weight or a float buffer out, smooths a counter, or differs in the last bit from weight by weight."
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1).double())
    ema = EMA(net, halflife=10)
    before = deepcopy(ema.average.state_dict())
    for x in net.state_dict().values(): x.add_(1 if x.dtype == torch.int64 else torch.randn_like(x))
    ema.update(5, 100)
    for name, live in net.state_dict().items():
        expected = torch.lerp(before[name], live, 1 - .5**.5) if live.is_floating_point() else live
        assert torch.equal(ema.average.state_dict()[name], expected), name

def test_groups_are_noted_once_a_set(monkeypatch):
    "Catches groups that are hashed again with each epoch, and a second set whose groups are not noted."
    hashed = []
    def counted(groups):
        hashed.append(list(groups))
        return group_codes(groups)
    trainer, first, second = toy_trainer(), toy_data(), toy_data(1, n=48)
    monkeypatch.setattr("medgan.training.loop.group_codes", counted)
    for n, data in enumerate((first, first, second, second), 1): trainer.fit(trainer.own_step, data, n/5, 8)
    assert hashed == [first.groups.tolist(), second.groups.tolist()]
    for net in (trainer.modules["net"], trainer.ema["net"].average): assert np.array_equal(net.seen, group_codes(second.groups))

def test_a_step_draws_by_its_number_alone():
    "Catches a step whose numbers depend on what was drawn before it, and a generator that torch.rand does not draw from."
    drawn = []
    trainer = Trainer({}, {}, seed=7, progress="")
    trainer.fit(lambda batch: drawn.append(torch.rand(())) or {"a": drawn[-1]}, toy_data(), 2/5, 8)
    for i, x in enumerate(drawn):
        torch.manual_seed(mixed_seed(7, i, 0, 0))
        assert x == torch.rand(())

@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults as Linux counts them")
def test_freed_memory_is_kept():
    "Catches a run that gives its memory back after every step: it is fetched again page by page, thousands of them."
    script = ("import resource, sys, torch\n"
              "from medgan.training.loop import Trainer\n"
              "torch.set_num_threads(1)\n"
              "if sys.argv[1:]: Trainer({}, {})\n"
              "def step(): return sum(float(torch.ones(2**21)[-1]) for _ in range(4)) + len([torch.ones(2**22) for _ in range(8)])\n"
              "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
              "for _ in range(3): step()\n"
              "before = faults()\n"
              "for _ in range(5): step()\n"
              "print(faults() - before)")
    def faults(*given):
        command, small = [sys.executable, "-c", script, *given], str(2**17)                # what the C library begins with
        environment = os.environ | dict(MALLOC_TRIM_THRESHOLD_=small, MALLOC_MMAP_THRESHOLD_=small)
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert faults("a run") < faults()/20
