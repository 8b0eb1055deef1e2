"A checkpoint comes back to the last bit, or is refused in one line that names the file; nothing in a file can run."
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import FullDisk, contents, train

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

def header(state='{"dict": []}', config="{}", more=', "crc32": 0'):
    "The text of a checkpoint's header."
    return f'{{"format": "medgan-2", "state": {state}, "config": {config}{more}}}'

HEADERS = dict(no_state='{"format": "medgan-2", "config": {}, "crc32": 0}',
               no_config='{"format": "medgan-2", "state": {"dict": []}, "crc32": 0}',
               no_checksum=header(more=""), half_json=header()[:-5], list="[]", text='"medgan-2"', number="2",
               no_tensor=header('{"dict": [["w", {"tensor": 5}]]}'), no_pair=header('{"dict": [1]}'),
               no_key=header('{"dict": [[[1], 2]]}'), no_node=header('{"module": 3}'),
               deep_state=header("["*100_000), deep_nodes=header('{"list": ['*5000 + "]}"*5000),
               deep_config=header(config="["*100_000), long_number=header(config='{"a": ' + "1"*5000 + "}"))

@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_header_that_makes_no_sense(tmp_path, text):
    "Catches a stranger's file that ends in a KeyError, a TypeError or the interpreter's stack, instead of one line that names it."
    path = tmp_path/"foreign.safetensors"
    save_file({"0": torch.zeros(2)}, path, metadata=dict(medgan=text))
    with pytest.raises(CheckpointError) as caught: load_checkpoint(path)
    assert f"{path} is no medgan checkpoint; its header makes no sense" in str(caught.value) and "\n" not in str(caught.value)

@pytest.mark.parametrize("state, config, message", [("[]", "{}", "are no dicts"), ('{"dict": []}', "[1, 2]", "are no dicts"),
                                                    ('{"dict": [["step", 3]]}', "{}", "is damaged: its checksum is another one")])
def test_header_of_others(tmp_path, state, config, message):
    "Catches a state or a configuration that is no dict, and one that was edited."
    save_file({"0": torch.zeros(2)}, tmp_path/"c", metadata=dict(medgan=header(state, config)))
    with pytest.raises(CheckpointError, match=message): load_checkpoint(tmp_path/"c")

def test_turned_bits(undisturbed, tmp_path):
    "Catches one bit of a weight, of an optimiser's moment or of the header that turns unseen: a run would train on with it."
    data, path = checkpoints(undisturbed[0])[-1].read_bytes(), tmp_path/"c"
    whole, rng, refused = load_checkpoint(checkpoints(undisturbed[0])[-1]), np.random.default_rng(0), 0
    n_header = 8 + int.from_bytes(data[:8], "little")
    for at in (*rng.integers(0, n_header, 60), *rng.integers(n_header, len(data), 60)):
        turned = bytearray(data)
        turned[at] ^= 1 << rng.integers(8)
        path.write_bytes(turned)
        try: found = load_checkpoint(path)
        except CheckpointError: refused += 1
        else: assert same_state(found[0], whole[0]) and found[1] == whole[1], f"byte {at}"    # a blank that fills the header up
    assert refused >= 118

def test_equal_runs_equal_bytes(run, undisturbed, tmp_path):
    "Catches a file whose parts stand in an order of chance, or that holds a time: two runs could not be compared by their checksums."
    assert run(tmp_path/"run") == 0
    ours, theirs = ({name: data for name, data in contents(d).items() if name != "stats.jsonl"} for d in (tmp_path/"run", undisturbed[0]))
    assert ours == theirs and len([name for name in ours if name.startswith("checkpoint-")]) == 2

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
    monkeypatch.setattr("medgan.training.checkpoints.open", FullDisk, raising=False)
    with pytest.raises(OSError, match=f"No space.*{path}"): write_whole(path, b"new")
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
