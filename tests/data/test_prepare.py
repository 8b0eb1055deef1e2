"Tables are checked, pictures decoded once; a crash, a race or a kill leaves nothing that is taken for a whole cache."
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sets import edit_metadata, edit_zip, frozen_key, ham, image_folder, jpeg, left, refused

from medgan.data import prepare, sources
from medgan.data.images import load_data
from medgan.data.prepare import clear_cache
from medgan.data.registry import DataError

def test_id_twice(tiny_ham, cache):
    "Catches an image that counts twice (and may stand on two sides of a split)."
    edit_metadata(tiny_ham, lambda t: pd.concat([t, t[t.image_id == "ISIC_0000301"].assign(lesion_id="HAM_9999999")]))
    with refused(cache, "ISIC_0000301", "2 times"): ham(tiny_ham)

def test_unknown_diagnosis(tiny_ham, cache):
    "Catches a diagnosis that becomes label NaN or is dropped."
    edit_metadata(tiny_ham, lambda t: t.assign(dx=t.dx.where(t.image_id != "ISIC_0000301", "scc")))
    with refused(cache, "'scc'", "ISIC_0000301", "akiec, bcc, bkl, df, mel, nv, vasc"): ham(tiny_ham)

@pytest.mark.parametrize("column, name", [("dx", "dx"), ("lesion_id", "group")])
def test_empty_cells(tiny_ham, cache, column, name):
    "Catches images without a lesion that all count as one group, or as none."
    edit_metadata(tiny_ham, lambda t: t.assign(**{column: t[column].where(t.image_id != "ISIC_0000301")}))
    with refused(cache, f"{name} is empty for 1 images", "ISIC_0000301"): ham(tiny_ham)

def test_second_load_reads_the_cache(tiny_ham, cache, monkeypatch):
    "Catches a cache that is written and never read."
    first = ham(tiny_ham)
    monkeypatch.setattr(sources, "_decode_photo", lambda *_: pytest.fail("decoded again"))
    second = ham(tiny_ham)
    assert second.fingerprint == first.fingerprint and np.array_equal(second.images, first.images) and len(left(cache)) == 1
    assert isinstance(second.images, np.memmap) and not second.images.flags.writeable

def test_changed_files_are_read_again(tiny_ham, cache):
    "Catches a cache keyed by name and size alone: new pixels, another label and another size would show the old ones."
    fingerprints = [ham(tiny_ham).fingerprint]
    edit_zip(tiny_ham/"HAM10000_images_part_1.zip", lambda files: files.update({"ISIC_0000000.jpg": jpeg(np.random.default_rng(5))}))
    fingerprints.append(ham(tiny_ham).fingerprint)
    edit_metadata(tiny_ham, lambda t: t.assign(dx=t.dx.where(t.image_id != "ISIC_0000000", "mel")))
    fingerprints.append(ham(tiny_ham).fingerprint)
    fingerprints.append(ham(tiny_ham, size=24).fingerprint)
    assert len(set(fingerprints)) == 4 and len(left(cache)) == 4
    assert clear_cache("ham10000") == 4 and left(cache) == []

def test_clear_cache_takes_one_set(tiny_ham, cache, tmp_path):
    "Catches a clear_cache that removes the neighbours too."
    ham(tiny_ham)
    load_data("folder", str(image_folder(tmp_path/"mine")), size=16)
    assert clear_cache("ham10000") == 1 and [n.split("-")[0] for n in left(cache)] == ["folder"]
    with pytest.raises(DataError, match="no such data set"): clear_cache("*")

def test_skin_caches_stay(tiny_ham, tmp_path, cache):
    "Catches that all sets are prepared again without need."
    data = ham(tiny_ham)
    mine = load_data("folder", str(image_folder(tmp_path/"mine")), size=16)
    assert left(cache) == sorted((f"ham10000-16-{frozen_key(data.table, 16)}", f"folder-16-{frozen_key(mine.table, 16)}"))

@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError("No space left on device")])
def test_crash_while_preparing(tiny_ham, cache, monkeypatch, error):
    "Catches a half-made cache that the next opening takes for a whole one."
    def crash(*_): raise error
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "fingerprint_of", crash)
        with pytest.raises(error if isinstance(error, type) else DataError) as caught: ham(tiny_ham)
        if caught.type is DataError: assert "No space left on device" in str(caught.value) and "make room" in str(caught.value)
    assert left(cache) == []
    assert len(ham(tiny_ham)) == 42

def turn_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)

@pytest.mark.parametrize("name, damage", [
    ("images.npy", turn_a_bit), ("masks.npy", Path.unlink), ("images.npy", lambda p: p.write_bytes(p.read_bytes()[:-100])),
    ("sizes.npy", turn_a_bit), ("meta.json", Path.unlink), ("meta.json", lambda p: p.write_text("{")),
    ("masks.npy", lambda p: p.write_bytes(b""))])
def test_damaged(tiny_ham, cache, name, damage):
    "Catches a prepared set whose masks are gone, whose files are cut, or in which a bit has turned, and that is used all the same."
    first = ham(tiny_ham)
    folder = cache/left(cache)[0]
    images, masks = np.array(first.images), np.array(first.masks)
    damage(folder/name)
    with pytest.warns(UserWarning, match=f"{folder.name} is damaged: it is prepared again"): second = ham(tiny_ham)
    assert second.fingerprint == first.fingerprint and np.array_equal(second.images, images) and np.array_equal(second.masks, masks)
    assert left(cache) == [folder.name]

RACE = """
import multiprocessing, os, sys
import medgan.data.prepare as d
from medgan.data.images import load_data
fingerprint, barrier = d.fingerprint_of, multiprocessing.Barrier(2)
def decoded(*args):
    os.write(2, b"decoded\\n")
    return fingerprint(*args)
d.fingerprint_of = decoded
child = os.fork()
barrier.wait(60)                                                    # both begin at once
data = load_data("ham10000", sys.argv[1], size=16)
os.write(1, f"{data.fingerprint} {len(data)}\\n".encode())          # in one piece
if child == 0: os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""

KILLED = """
import os, signal, sys
from medgan.data.images import load_data
from medgan.data.prepare import clear_cache
cache, n = os.environ["MEDGAN_CACHE"], -1
def arm(n):
    seen = [0]
    def hook(event, args):                                          # a file or folder of the cache is made, emptied, renamed or removed
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") or not str(args[0]).startswith(cache): return
        if event == "open" and (os.path.isdir(args[0]) or not set(str(args[1])) & set("wa+x")): return
        seen[0] += 1
        if seen[0] > n: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
while True:
    n += 1
    child = os.fork()
    if child == 0:
        arm(n)
        load_data("ham10000", sys.argv[1], size=16)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0: break                          # it came to its end: all moments were tried
    data = load_data("ham10000", sys.argv[1], size=16)
    os.write(1, f"{data.fingerprint} {len(data)}\\n".encode())
    clear_cache("ham10000")
    assert set(os.listdir(cache)) <= {".lock"}, f"clear_cache leaves {os.listdir(cache)}"
"""

@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("script, least", [(RACE, 2), (KILLED, 5)], ids=["at once", "killed"])
def test_two_processes(tiny_ham, cache, script, least):
    """Catches two processes that prepare one set twice, a slower one that fails, and that what a killed one left (at any moment) is
    taken for a cache, or stays for ever."""
    done = subprocess.run([sys.executable, "-c", script, str(tiny_ham)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    lines = [line for line in lines if "waiting" not in line]
    assert len(lines) >= least and set(lines) == {f"{ham(tiny_ham).fingerprint} 42"}
    assert len(left(cache)) == 1 and done.stderr.count("decoded") == (script == RACE)

def test_read_only_cache(tiny_ham, cache, monkeypatch):
    "Catches an opening that writes where there is nothing to write: a cache may be shared, and its reader's disk be full."
    first = ham(tiny_ham)
    monkeypatch.setattr(prepare, "alone", lambda *_, **__: pytest.fail("asks for the right to write"))
    assert ham(tiny_ham).fingerprint == first.fingerprint

def test_unfinished_of_others(tiny_ham, cache):
    "Catches what a killed process left of another set, as large as the set: nobody would ever ask for it again."
    (cache/"isic-64-0123456789abcdef.part").mkdir(parents=True)
    (cache/"isic-64-0123456789abcdef.part"/"images.npy").write_bytes(b"0"*1000)
    ham(tiny_ham)
    assert [name.split("-")[0] for name in left(cache)] == ["ham10000"]
