"A checkpoint comes back to the last bit, or is refused in one line that names the file; nothing in a file can run."
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import contents, train

from medgan.core.checks import ParameterError, check_out_dir
from medgan.training.checkpoints import (
    CheckpointError,
    checkpoints,
    load_checkpoint,
    load_tensors,
    same_state,
    save_checkpoint,
    write_whole,
)

def test_same_state():
    "Catches a comparison that finds everything equal: it would make the tests of resumed runs pass."
    state = lambda x=1., y=2: dict(a=[torch.tensor([x, 2.])], b=y, c=None)
    assert same_state(state(), state())
    assert not same_state(state(), state(x=1.0000001)) and not same_state(state(), state(y=3))
    assert not same_state(torch.zeros(2), torch.zeros(2).double()) and not same_state(torch.zeros(2), torch.zeros(3))
    assert not same_state([1], [1, 2]) and not same_state(torch.zeros(2), None)
    assert not same_state(dict(a=1), dict(b=1)) and not same_state(dict(a=1), dict(a=1, b=2))

def test_state_comes_back(tmp_path):
    "Catches keys that become text (the optimiser's are numbers), lost dtypes, shared and non-contiguous tensors."
    x = torch.arange(6.).reshape(2, 3)
    state = dict(numbers={0: 1.5, 1: None}, text="é", flag=True, deep=[dict(x=x, again=x, turned=x.T)], scalar=torch.tensor(3),
                 empty=torch.zeros(0, 2), half=x.bfloat16(), tiny=5e-324)
    save_checkpoint(tmp_path/"c", state, dict(a=1))
    back, config = load_checkpoint(tmp_path/"c")
    assert same_state(state, back) and config == dict(a=1) and [p.name for p in tmp_path.iterdir()] == ["c"]

@pytest.mark.parametrize("state", [dict(a=object()), dict(a=np.zeros(2)), dict(a={1, 2})])
def test_state_that_cannot_be_kept(tmp_path, state):
    "Catches a checkpoint that loses a part of the state in silence, and a half-written file."
    with pytest.raises(TypeError, match="a checkpoint holds tensors, numbers and text"): save_checkpoint(tmp_path/"c", state, {})
    assert not list(tmp_path.iterdir())

def test_order_of_checkpoints(tmp_path):
    "Catches a newest checkpoint by name where the step has more digits, and files of others that are taken for one."
    for name in ("checkpoint-00000100", "checkpoint-00000020", "checkpoint-00000003"): (tmp_path/f"{name}.safetensors").touch()
    for name in ("checkpoint-00000200.safetensors.part", "weights.safetensors", "checkpoint-x.txt"): (tmp_path/name).touch()
    assert [p.stem[-3:] for p in checkpoints(tmp_path)] == ["003", "020", "100"]

# ---- damaged and foreign files

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
    damaged = {"half": data[:len(data)//2], "no end": data[:-1], "empty": b"", "garbage": bytes(range(256))*40,
               "pickle": pickle.dumps(Evil(tmp_path/"ran"))}
    if damage == "foreign": save_file({"weight": torch.zeros(2)}, path, metadata=dict(format="pt"))
    else: path.write_bytes(damaged[damage])
    before = contents(tmp_path/"run")
    with pytest.raises(CheckpointError) as caught: train(tmp_path/"run", resume=True)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert ("no medgan checkpoint" if damage == "foreign" else "remove it to go on from the one before") in message
    assert contents(tmp_path/"run") == before and not (tmp_path/"ran").exists()

HEADERS = dict(no_state=dict(config="{}"), no_config=dict(state="{}"), half_json=dict(state="{", config="{}"),
               list_state=dict(state="[]", config="{}"), list_config=dict(state='{"dict": []}', config="[1, 2]"),
               text_config=dict(state='{"dict": []}', config='"x"'),
               no_tensor=dict(state='{"dict": [["w", {"tensor": 5}]]}', config="{}"), no_pair=dict(state='{"dict": [1]}', config="{}"),
               no_key=dict(state='{"dict": [[[1], 2]]}', config="{}"), no_node=dict(state='{"module": 3}', config="{}"),
               deep_state=dict(state="["*100_000, config="{}"), deep_nodes=dict(state='{"list": ['*5000 + "]}"*5000, config="{}"),
               deep_config=dict(state='{"dict": []}', config="["*100_000),
               long_number=dict(state='{"dict": []}', config='{"a": ' + "1"*5000 + "}"))

@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_that_makes_no_sense(tmp_path, header):
    "Catches a stranger's file that ends in a KeyError, a TypeError or the interpreter's stack, instead of one line that names it."
    path = tmp_path/"foreign.safetensors"
    save_file({"0": torch.zeros(2)}, path, metadata=dict(format="medgan-1") | header)
    with pytest.raises(CheckpointError) as caught: load_checkpoint(path)
    assert f"{path} is no medgan checkpoint; its" in str(caught.value) and "\n" not in str(caught.value)

def test_checkpoint_missing(tmp_path):
    "Catches a FileNotFoundError of another kind than the other errors."
    for read in (load_checkpoint, load_tensors):
        with pytest.raises(CheckpointError, match="is not there"): read(tmp_path/"checkpoint.safetensors")

@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_tensors_only(tmp_path, suffix):
    "Catches weights from elsewhere that are unpickled."
    torch.save(dict(a=Evil(tmp_path/"ran")), tmp_path/f"evil{suffix}")
    with pytest.raises(CheckpointError, match="more than tensors, which is never run"): load_tensors(tmp_path/f"evil{suffix}")
    assert not (tmp_path/"ran").exists()

def test_whole_or_not_at_all(tmp_path, monkeypatch):
    "Catches a file that is written in place: what stood there is lost when the disk is full."
    path = tmp_path/"new"/"file"
    write_whole(path, b"old")
    class Full:
        def __init__(self, *_): raise OSError(28, "No space left on device")
    monkeypatch.setattr("medgan.training.checkpoints.open", Full, raising=False)
    with pytest.raises(OSError, match="No space"): write_whole(path, b"new")
    assert contents(tmp_path) == {"new/file": b"old"}

# ---- where a run is kept

@pytest.mark.parametrize("where", ["file", "file/below/it"])
def test_out_dir_is_file(tmp_path, where):
    "Catches a run that finds out after its first epoch that it cannot be kept."
    (tmp_path/"file").write_text("mine")
    for refuse in (lambda: check_out_dir(str(tmp_path/where)), lambda: train(tmp_path/where)):
        with pytest.raises(ParameterError, match="out_dir=.*is a file; name a folder"): refuse()
    assert contents(tmp_path) == {"file": b"mine"}

def test_out_dir_read_only(tmp_path):
    "Catches the same for a folder without permission."
    (tmp_path/"closed").mkdir(mode=0o500)
    try: (tmp_path/"closed"/"probe").touch()
    except PermissionError: pass
    else: pytest.skip("this user may write everywhere")
    with pytest.raises(ParameterError, match="out_dir=.*cannot be written"): train(tmp_path/"closed"/"run")
    assert not list((tmp_path/"closed").iterdir())
