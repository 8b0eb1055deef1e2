"What all tests share: a cache of their own, few threads, a small fake HAM10000, and the real data where $MEDGAN_DATA names it."
import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ["OMP_NUM_THREADS"] = "1"     # before torch, and for what the tests start: a worker a core, each with one thread

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medgan.data.splits import group_sides
from medgan.training.checkpoints import checkpoints, load_checkpoint, same_state
from medgan.training.loop import Trainer

HAM_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")

def jpeg(rng, width=40, height=30):
    "The bytes of a small colourful JPEG."
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    data = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    return data.getvalue()

def mask_png(rng, width=40, height=30):
    "The bytes of a rectangle's mask."
    mask, x, y = np.zeros((height, width), np.uint8), *rng.integers(8, 14, 2)
    mask[y:y + 10, x:x + 14] = 255
    data = io.BytesIO()
    Image.fromarray(mask).save(data, "PNG")
    return data.getvalue()

def write_zip(path, files):
    "A zip file of name -> bytes."
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items(): archive.writestr(name, data)

def lesions_of_sides(label, sides=("train", "val", "test", "train")):
    "Names of lesions that a split with seed 0 puts there: with four of a class it would rarely give every part one."
    numbers = iter(range(1000*label, 1000*label + 1000))
    def next_on(side): return next(f"HAM_{i:07d}" for i in numbers if group_sides([f"ham10000/HAM_{i:07d}"])[0] == side)
    return [next_on(side) for side in sides]

def build_ham(folder):
    "42 images of 28 lesions in the layout of Harvard Dataverse: per class two lesions of two images and two of one."
    rng = np.random.default_rng(0)
    lesions = [lesions_of_sides(label) for label in range(len(HAM_CLASSES))]
    rows, images, masks = [], {}, {}
    for label, dx in enumerate(HAM_CLASSES):
        for i, lesion in enumerate((0, 0, 1, 1, 2, 3)):
            name = f"ISIC_{100*label + i:07d}"
            rows.append(dict(lesion_id=lesions[label][lesion], image_id=name, dx=dx, dx_type="histo", age=50. + i, sex="female",
                             localization="back", dataset="rosendahl"))
            images[f"{name}.jpg"] = jpeg(rng)
            masks[f"HAM10000_segmentations_lesion_tschandl/{name}_segmentation.png"] = mask_png(rng)
            masks[f"__MACOSX/HAM10000_segmentations_lesion_tschandl/._{name}_segmentation.png"] = b"Mac OS X"   # as in the publisher's file
    names = list(images)
    write_zip(folder/"HAM10000_images_part_1.zip", {n: images[n] for n in names[::2]})
    write_zip(folder/"HAM10000_images_part_2.zip", {n: images[n] for n in names[1::2]})
    write_zip(folder/"HAM10000_segmentations_lesion_tschandl.zip", masks)
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_csv(folder/"HAM10000_metadata", index=False)

@pytest.fixture(scope="session")
def _built_ham(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")/"ham10000"
    folder.mkdir()
    build_ham(folder)
    return folder

@pytest.fixture
def tiny_ham(_built_ham, tmp_path):
    "A fresh copy of the small fake HAM10000; a test may damage it."
    return Path(shutil.copytree(_built_ham, tmp_path/"data"/"ham10000"))

@pytest.fixture(scope="session")
def _session_cache(tmp_path_factory): return tmp_path_factory.mktemp("cache")

@pytest.fixture(autouse=True)
def _own_cache(_session_cache, monkeypatch):
    "Prepared data of the tests never lands in the user's cache, whatever a notebook does to the variable."
    monkeypatch.setenv("MEDGAN_CACHE", str(_session_cache))

@pytest.fixture
def cache(tmp_path, monkeypatch):
    "An empty cache for one test."
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path/"cache"))
    return tmp_path/"cache"

@pytest.fixture(scope="session")
def real_data():
    "The root of the real data sets."
    root = os.environ.get("MEDGAN_DATA")
    if not root: pytest.skip("needs real data: set MEDGAN_DATA to the folder that holds the data sets (data/README.md)")
    return Path(root).expanduser()

@pytest.fixture
def goes_on(tmp_path, monkeypatch):
    "Check that a run which is killed after its second checkpoint and goes on ends as one that nobody killed."
    def check(train): # train(folder, resume=...) keeps several checkpoints; gives the final state
        train(str(tmp_path/"whole"))
        save, n = Trainer.save_now, [0]
        def save_and_die(self):
            save(self)
            n[0] += 1
            if n[0] == 2: raise KeyboardInterrupt
        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "save_now", save_and_die)
            with pytest.raises(KeyboardInterrupt): train(str(tmp_path/"killed"))
        train(str(tmp_path/"killed"), resume=True)
        whole, killed = (load_checkpoint(checkpoints(tmp_path/name)[-1])[0] for name in ("whole", "killed"))
        assert same_state(whole, killed)
        return whole
    return check

@pytest.fixture(scope="session")
def run_notebook():
    "Run a paper's notebook up to and with the cell that holds a text (the check of its parameters), as papermill would; gives its names."
    def run(notebook, injected="", until="p = check("):
        scope = {"__annotations__": {}, "In": [f"# Parameters\n{injected}\n"]}
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] != "code" or source.startswith(("#| default_exp", "headline(")): continue
            exec(compile(source, notebook.name, "exec"), scope)
            if "parameters" in cell["metadata"].get("tags", []): exec(injected, scope)
            if until in source: return scope
        raise AssertionError(f"the notebook has no cell with {until!r}")
    return run

@pytest.fixture
def refuses(tmp_path, monkeypatch, run_notebook):
    "Check that a notebook's setup refuses a parameter, says so, and leaves nothing behind."
    def check(notebook, injected, error, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(error) as caught: run_notebook(notebook, injected)
        assert message in str(caught.value)
        assert not list(tmp_path.iterdir())
    return check
