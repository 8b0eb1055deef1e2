"""Disks that are full or read-only, processes at once, signals: what needs root, and so is no part of the tests.

As root on Linux: `python tests/faults/disks_and_signals.py`. It mounts small disks of memory, prints a row a fault, and ends with 1
where one of them did not come out as it should."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medgan.cdcgan import train_cdcgan
from medgan.data.images import load_data
from medgan.evaluate.features import image_features, load_extractor
from medgan.report.ledger import runs, write_results
from medgan.report.pages import BEGIN, END, update_readme
from medgan.training.checkpoints import checkpoints, load_checkpoint, same_state

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
RUN = dict(epochs=6, z_dim=8, width=4, batch_size=16)
OFTEN = dict(progress="", checkpoint_every=1, log_every=1)

@contextmanager
def disk(size, *options): # yields a folder
    "A small disk of memory."
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", folder], check=True)
    try: yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()

def fill(folder, but=0):
    "Leave `but` bytes of a disk."
    (folder/"filler").write_bytes(b"0"*(shutil.disk_usage(folder).free - but))

def photographs(folder, n=60):
    "A folder set."
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder/"ab"[i % 2]/f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return folder

def caught(call):
    "What a call raises, in one line."
    try: call()
    except Exception as error: return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "nothing is raised"

def train(out_dir, resume=False, **changes):
    "Six epochs on 60 phantoms, a checkpoint a step."
    return train_cdcgan(load_data("phantom", size=32, n=60, classes=["mel", "nv"]), RUN | changes, str(out_dir), resume, **OFTEN)

def forked(call): # pid
    "A process that does it, and ends with 0, or with 1 where it raises."
    if pid := os.fork(): return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try: call()
    except BaseException: os._exit(1)
    os._exit(0)

def ended(pid): # exit code; a signal as its negative
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def own_data(cache, data):
    "The folder set, prepared in this cache."
    os.environ["MEDGAN_CACHE"] = str(cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)                 # each image counts as a group of its own
        return load_data("folder", str(data), 64)

# ---- the faults: each gives what came out, and whether it should

def full_disk_cache(home):
    with disk("300k") as cache:
        told = caught(lambda: own_data(cache, home/"photographs"))
        left = [p.name for p in cache.iterdir()]
    return f"{told}; left: {left}", "DataError" in told and "MEDGAN_CACHE" in told and left == []

def read_only_cache(home):
    with disk("20m") as cache:
        whole = own_data(cache, home/"photographs").fingerprint
        subprocess.run(["mount", "-o", "remount,ro", cache], check=True)
        again = own_data(cache, home/"photographs").fingerprint
        (home/"more").exists() or photographs(home/"more", 20)
        told = caught(lambda: own_data(cache, home/"more"))
    return f"prepared set opens: {again == whole}; another: {told}", again == whole and "cannot be written" in told

def full_disk_features(home):
    data = own_data(home/"cache", home/"photographs")
    with disk("64k") as cache, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fill(cache)
        os.environ["MEDGAN_CACHE"] = str(cache)
        features = image_features(data, load_extractor("skin"))
        left = [p.name for p in cache.rglob("*") if p.is_file() and p.name != "filler"]
    told = "; ".join(str(w.message) for w in told)
    return f"{len(features)} features; warning: {told[:150]}; left: {left}", len(features) == 60 and "No space" in told and not left

def full_disk_checkpoint(home):
    with disk("300k") as place:
        told = caught(lambda: train(place/"run"))
        left, readable = sorted(p.name for p in (place/"run").iterdir()), [load_checkpoint(p) for p in checkpoints(place/"run")]
    is_right = "CheckpointError" in told and "Last good checkpoint" in told and readable and not [n for n in left if n.endswith(".part")]
    return f"{told[:300]}; {len(readable)} checkpoints can be read; left: {left}", bool(is_right)

def read_only_run(home):
    with disk("20m") as place:
        train(place/"run")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        told = caught(lambda: train(place/"run", resume=True))
        readable = len([load_checkpoint(p) for p in checkpoints(place/"run")])
    return f"{told}; {readable} checkpoints can be read", "out_dir" in told and "cannot be written" in told and readable == 2

def full_disk_results(home):
    metrics = [dict(table="t", row=f"r{i}", column="c", value=1., note="n"*200) for i in range(200)]
    about = dict(data=dict(name="d", size=1, n=1, fingerprint="x"), parameters={}, seeds=[0], wall_s=1, device="CPU")
    with disk("600k") as place:
        shutil.copytree(ROOT/"data"/"published", place/"data"/"published")
        readme = place/"README.md"
        readme.write_text("intro\n"*580 + f"{BEGIN}\n{END}\nend\n")
        fill(place, 8192)
        told = caught(lambda: write_results("cdcgan", "a", metrics, root=place/"data", **about))
        left, before = [p.name for p in (place/"data"/"results"/"cdcgan").iterdir()], readme.read_bytes()
        fill(place/"data")
        also = caught(lambda: update_readme(readme, place/"data"))
        is_same = readme.read_bytes() == before
        is_right = "No space" in told and "No space" in also and not left and not runs("cdcgan", place/"data") and is_same
        return f"{told}; left: {left}; README: {also}; as it was: {is_same}", is_right

def two_runs(home):
    first, second = (forked(lambda s=s: train(home/"two", seed=s)) for s in (0, 1))
    codes = sorted((ended(first), ended(second)))
    seeds = {load_checkpoint(p)[1]["seed"] for p in checkpoints(home/"two")}
    return f"exit codes {codes}; seeds in the folder {sorted(seeds)}", codes == [0, 1] and len(seeds) == 1

def two_preparations(home):
    pids = [forked(lambda: own_data(home/"once", home/"photographs")) for _ in range(4)]
    codes, left = [ended(pid) for pid in pids], sorted(p.name.split("-")[0] for p in (home/"once").iterdir())
    return f"four processes, exit codes {codes}; left: {left}", codes == [0]*4 and left == ["folder"]

def killed_preparations(home):
    cache = home/"killed"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        pid = forked(lambda: own_data(cache, home/"many"))
        while not list(cache.glob("*.part")): time.sleep(.002)
        time.sleep(.02)
        os.kill(pid, number)
        ended(pid)
    own_data(cache, home/"many")
    left = sorted(p.name.split("-")[0] for p in cache.iterdir())
    return f"after three kills and a whole preparation: {left}", left == ["folder"]

def told_to_stop(home):
    whole = train(home/"whole").step
    for name in ("SIGTERM", "SIGINT"):
        pid = forked(lambda: train(home/name))
        while len(checkpoints(home/name)) < 2: time.sleep(.002)
        os.kill(pid, getattr(signal, name))
        ended(pid)
        train(home/name, resume=True)
    states = [load_checkpoint(checkpoints(home/name)[-1])[0] for name in ("whole", "SIGTERM", "SIGINT")]
    same = [same_state(states[0], state) for state in states[1:]]
    return f"{whole} steps; resumed runs equal to the last bit: {same}", same == [True, True]

FAULTS = (full_disk_cache, read_only_cache, full_disk_features, full_disk_checkpoint, read_only_run, full_disk_results,
          two_runs, two_preparations, killed_preparations, told_to_stop)

def main():
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        photographs(home/"photographs")
        photographs(home/"many", 600)
        for fault in FAULTS:
            came_out, is_right = fault(home)
            wrong += not is_right
            print("right" if is_right else "WRONG", fault.__name__.replace("_", " "), came_out.replace(str(home), "<home>"), sep=" | ")
    return int(wrong > 0)

if __name__ == "__main__": sys.exit(main())
