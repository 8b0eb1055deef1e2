"Two processes do the work of one: the same script by torchrun, by accelerate's launcher, and in one process with the whole batch."
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from small_runs import rows

from medgan.training.checkpoints import checkpoints, load_checkpoint, same_state

SCRIPT = '''
import sys
from copy import deepcopy

import numpy as np
import torch
from torch import nn

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.models.stylegan2_augment import AdaptiveP, Augment
from medgan.models.stylegan2_train import train_stylegan2
from medgan.training.loop import EMA, NonFiniteLoss, Trainer, set_seed

class Data:
    "x and 2x - 1, in 64 rows."
    x = torch.linspace(-1, 1, 64*5).reshape(5, 64).T.contiguous()
    def __len__(self): return 64
    def read(self, rows, device): return dict(x=self.x[rows].to(device), rows=torch.as_tensor(rows))

def flat(module): return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy()

def regression(out_dir, **options):
    "A network, its trainer and a step without chance."
    set_seed(0)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 5))
    opt = torch.optim.SGD(net.parameters(), .05, momentum=.9) # Adam would not see gradients that are added instead of averaged
    trainer = Trainer(dict(net=net), dict(opt=opt), out_dir=out_dir, ema=dict(net=EMA(net, 100)), progress="", log_every=4, **options)
    def step(batch):
        loss = (net(batch["x"]) - 2*batch["x"] + 1).square().mean()
        trainer.update(opt, loss)
        return dict(loss=loss, rank=torch.tensor(float(trainer.rank)))
    return trainer, step

def trained(out_dir):
    "Weights, their average, images seen."
    trainer, step = regression(out_dir)
    trainer.fit(step, Data(), 3, 16)
    return trainer, dict(net=flat(trainer.modules["net"]), ema=flat(trainer.ema["net"].average), images=trainer.images, world=trainer.world)

def adapted(trainer):
    "How p moves when it is fed by D's logits of a real batch, of which each process sees a part."
    augment, values = Augment("bg"), []
    adapt = AdaptiveP(augment, target=.4, kimg=.5)
    logits = torch.randn(24, 16, generator=torch.Generator().manual_seed(0)) + torch.linspace(2, -.5, 24)[:, None]
    for batch in logits:
        adapt(trainer.gather(batch[trainer.rank::trainer.world].requires_grad_()))
        values.append(augment.p.item())
    return values

def together(trainer):
    "What gather and everywhere make of rows that know their process."
    mine = torch.arange(8.).reshape(4, 2)[trainer.rank::trainer.world].requires_grad_()
    gathered, mean = trainer.gather(mine*1), trainer.everywhere(mine.detach().mean(0))
    assert not gathered.requires_grad and torch.equal(mine, torch.arange(8.).reshape(4, 2)[trainer.rank::trainer.world])
    return dict(gathered=gathered[gathered[:, 0].argsort()].numpy(), mean=mean.numpy())

def broken(out_dir):
    "What the process is told where only the last one has a NaN, in step 7."
    trainer, step = regression(out_dir, checkpoint_every=4)
    def spoiled(batch):
        terms = step(batch)
        if trainer.step == 6 and trainer.rank == trainer.world - 1: terms["loss"] = terms["loss"]*float("nan")
        return terms
    try: trainer.fit(spoiled, Data(), 3, 16)
    except NonFiniteLoss as error: return str(error)
    return "went on"

def refused():
    "What the process is told of a batch that cannot be shared out."
    trainer, step = regression("")
    try: trainer.fit(step, Data(), 1, 15)
    except ParameterError as error: return str(error)
    return "went on"

def drawn(salt):
    "The noise of the first three steps."
    trainer, values = Trainer({}, {}, seed=1, progress="", salt=salt), []
    def step(batch):
        values.append(torch.rand(()).item())
        return dict(loss=torch.zeros(()))
    trainer.fit(step, Data(), 3/4, 16)
    return values

def stylegan(out_dir, **options):
    "StyleGAN2 with p, path length and R1 at work; with half of it, a run to go on with."
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    data = as_image_data(images, labels=np.arange(16) % 2, classes=["a", "b"])
    small = dict(batch_size=8, base=64, most=4, z_dim=4, w_dim=4, ada_kimg=.05, target=-1.)
    return train_stylegan2(data, small, out_dir, progress="", log_every=1, **options)

def main(out_dir):
    torch.set_num_threads(1)
    trainer, results = trained(out_dir)
    results |= together(trainer) | dict(p=adapted(trainer), broken=broken(out_dir + "-nan"), refused=refused())
    results |= {f"drawn{i}": drawn(salt) for i, salt in enumerate((0, 0, 7))}
    whole = stylegan(out_dir + "-whole", epochs=9)
    stylegan(out_dir + "-halved", epochs=4)
    halved = stylegan(out_dir + "-halved", epochs=9, resume=True)
    results |= {f"{name}_{net}": flat(run.modules[net]) for name, run in (("whole", whole), ("halved", halved)) for net in "GD"}
    results |= dict(adaptive_p=whole.modules["augment"].p.item(), path=whole.extra["path"].mean.item(),
                    w_avg=whole.modules["G"].mapping.w_avg.numpy())
    np.savez(f"{out_dir}-{trainer.rank}.npz", **results)
    if trainer.world > 1: trainer.accelerator.end_training()   # gloo's threads may abort a process that just leaves

if __name__ == "__main__": main(sys.argv[1])
'''

def port():
    "A free one."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])

def torchrun():
    return ["torch.distributed.run", "--nproc_per_node", "2", "--nnodes", "1", "--master_addr", "127.0.0.1", "--master_port", port()]

def accelerate_launch():
    """accelerate's launcher starts several processes on CPU by --cpu only through MPI, else one without a word; by --multi_gpu it starts
    them through torchrun, and ACCELERATE_USE_CPU makes them use gloo."""
    return ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
            "--dynamo_backend", "no", "--main_process_port", port()]

LAUNCHERS = {"torchrun": torchrun, "accelerate launch": accelerate_launch}

def start(command, folder):
    "Run the script by this command; it must end well."
    (folder/"two.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen([sys.executable, *command, "two.py", "run"], cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

def results(process, folder, world):
    "What each process of the script found; its folder."
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out[-4000:]
    return [dict(np.load(folder/f"run-{rank}.npz")) for rank in range(world)], folder

@pytest.fixture(scope="module")
def one(tmp_path_factory):
    "One process with the whole batch."
    folder = tmp_path_factory.mktemp("one")
    return results(start([], folder), folder, 1)

@pytest.fixture(scope="module", params=LAUNCHERS)
def two(request, tmp_path_factory):
    "Two processes with half of it each."
    folder = tmp_path_factory.mktemp("two")
    made = start(["-m", *LAUNCHERS[request.param]()], folder)
    return results(made, folder, 2)

def test_same_result(one, two):
    "Catches gradients that are not averaged, or added; ranks that read the same rows; a launcher that started one process only."
    (alone,), both = one[0], two[0]
    assert alone["world"] == 1 and all(b["world"] == 2 for b in both) and all(b["images"] == alone["images"] == 192 for b in both)
    for key in ("net", "ema"):
        assert np.array_equal(both[0][key], both[1][key])
        assert np.abs(both[0][key] - alone[key]).max() < 1e-6

def test_one_folder(one, two):
    "Catches two processes that write one folder, and a row that is one process' and not the mean of all."
    assert [p.name for p in checkpoints(two[1]/"run")] == [p.name for p in checkpoints(one[1]/"run")]
    ours, theirs = rows(two[1]/"run"), rows(one[1]/"run")
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == [4, 8, 12]
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], abs=1e-6)
    assert {r["rank"] for r in ours} == {.5} and {r["rank"] for r in theirs} == {0}

def test_adaptive_p(one, two):
    "Catches p that each process moves by its own images: at half its speed, and to different values."
    alone, *both = (r["p"] for r in (*one[0], *two[0]))
    assert alone.tolist() == both[0].tolist() == both[1].tolist()
    assert alone.max() > .2 and alone[-1] < alone.max()                      # it went up, and came down again

def test_gather_and_everywhere(one, two):
    "Catches rows of one process only, rows twice, a sum instead of a mean, and a tensor that is changed by sending it."
    for found in (*one[0], *two[0]):
        assert found["gathered"].tolist() == np.arange(8.).reshape(4, 2).tolist() and found["mean"].tolist() == [3., 4.]

def test_nan_on_one_process(one, two):
    "Catches a run of which one process stops and the others wait for it for ever, and a checkpoint that is written after a NaN."
    for found, folder in ((*one[0],), one[1]), (two[0], two[1]):
        for process in found:
            assert "step 7: a loss is not finite (loss=nan" in str(process["broken"]) and "checkpoint-00000004" in str(process["broken"])
        assert [p.name for p in checkpoints(folder/"run-nan")] == ["checkpoint-00000004.safetensors"]

def test_batch_that_cannot_be_shared(one, two):
    "Catches processes with batches of different sizes, whose mean gradient is another one."
    assert str(one[0][0]["refused"]) == "went on"
    assert all(str(r["refused"]) == "batch_size=15: must be divisible by the 2 processes" for r in two[0])

def test_noise(one, two):
    "Catches processes or clients that draw equal noise, and a seed that is another one every time."
    for found in (*one[0], *two[0]):
        assert found["drawn0"].tolist() == found["drawn1"].tolist()
        assert len({*found["drawn0"], *found["drawn2"]}) == 6
    first, second = two[0]
    assert first["drawn0"].tolist() == one[0][0]["drawn0"].tolist()
    assert not {*first["drawn0"], *first["drawn2"]} & {*second["drawn0"], *second["drawn2"]}

def test_stylegan2(one, two):
    "Catches weights, p, the mean path length or the average of styles that drift apart between the processes."
    first, second = two[0]
    for key in ("whole_G", "whole_D", "adaptive_p", "path", "w_avg"): assert np.array_equal(first[key], second[key]), key
    assert first["adaptive_p"] == one[0][0]["adaptive_p"] > .1 and first["path"] > 0

def test_stylegan2_goes_on(one, two):
    "Catches state of which a checkpoint holds one process' share only: a resumed run ends as one that nobody stopped."
    for found, folder in (one, two):
        for process in found:
            for net in "GD": assert np.array_equal(process[f"whole_{net}"], process[f"halved_{net}"])
        whole, halved = (load_checkpoint(checkpoints(folder/f"run-{name}")[-1])[0] for name in ("whole", "halved"))
        assert same_state(whole, halved) and rows(folder/"run-whole") == rows(folder/"run-halved")
