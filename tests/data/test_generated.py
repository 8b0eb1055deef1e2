"Images that are written and read again: their bytes, classes and seeds survive, and a folder is never two calls' or half of one."
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_sets import pictures

from medgan.core.checks import ParameterError
from medgan.data.generated import check_new_folder, save_images
from medgan.data.images import as_image_data
from medgan.data.registry import DataError

BAD_NAMES = ["O/E - ecchymoses present", "../up", "/etc", "C:\\x", "nv", "NV", "con", ".hidden", "None", " mel ", "a,b", 'a"b', "a\nb", "1",
             ""]
any_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)

def made_of(names, channels=3):
    "Two images of each class."
    return as_image_data(pictures(2*len(names), channels=channels), name="fakes", labels=np.repeat(names, 2), classes=names)

def files_in(folder): return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())

def quietly_saved(data, out_dir, **told):
    "`save_images` without its warning of renamed classes."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save_images(data, out_dir, **told)

def test_layout(tmp_path):
    "Catches a file whose class, seed or latent nobody can tell, and a grey image written in colour."
    table = save_images(made_of(["mel", "nv"]), tmp_path/"out", seed=3, numbers=[0, 1, 0, 1])
    assert files_in(tmp_path/"out") == ["images.csv", *(f"{c}/3-0000{i}.png" for c in ("mel", "nv") for i in (0, 1))]
    rows = pd.read_csv(table)
    assert rows.to_dict("list") == dict(file=[f"{c}/3-0000{i}.png" for c in ("mel", "nv") for i in (0, 1)], dx=["mel"]*2 + ["nv"]*2,
                                        seed=[3]*4, number=[0, 1, 0, 1])
    grey = save_images(made_of(["a"], channels=1), tmp_path/"grey").parent
    assert Image.open(grey/"a"/"00001.png").mode == "L" and pd.read_csv(grey/"images.csv").seed.isna().all()

def test_there_and_back(tmp_path):
    "Catches a class that comes back under its folder's name, classes that land in one folder, and pixels that change."
    data = made_of(BAD_NAMES)
    with pytest.warns(UserWarning, match="classes have names that no folder can have") as told: save_images(data, tmp_path/"out")
    assert "'O/E - ecchymoses present' lies in 'O_E - ecchymoses present-" in str(told[0].message)
    assert Path(told[0].filename) == Path(__file__)
    back = as_image_data(tmp_path/"out", classes=BAD_NAMES)
    order = pd.read_csv(tmp_path/"out"/"images.csv", keep_default_na=False).file.argsort()
    assert back.classes == tuple(BAD_NAMES) and back.table.dx.tolist() == data.table.dx[order].tolist()
    assert np.array_equal(back.images, data.images[order])
    assert os.listdir(tmp_path) == ["out"] and len(os.listdir(tmp_path/"out")) == len(BAD_NAMES) + 1

@settings(max_examples=30, deadline=None)
@given(st.lists(any_names, min_size=1, max_size=4, unique=True))
def test_any_names(tmp_path_factory, names):
    "Catches a name that breaks the table or leaves the folder: quotes, newlines, separators, every letter there is."
    outer = tmp_path_factory.mktemp("outer")
    data = made_of(names)
    quietly_saved(data, outer/"out")
    back = as_image_data(outer/"out", classes=names)
    assert os.listdir(outer) == ["out"] and all(len(Path(f).parts) <= 2 for f in files_in(outer/"out"))
    pixels_and_class = [{(x.tobytes(), dx) for x, dx in zip(d.images, d.table.dx)} for d in (back, data)]
    assert pixels_and_class[0] == pixels_and_class[1]
    shutil.rmtree(outer)

def test_slices_come_back(tmp_path):
    "Catches slices, which are no squares, that are cut to squares or refused on their way back; size= still takes their centres."
    slices = as_image_data(np.arange(2*16*9, dtype=np.uint16).astype(np.uint8).reshape(2, 16, 9, 1), labels=["healthy", "sick"])
    save_images(slices, tmp_path/"out")
    assert np.array_equal(as_image_data(tmp_path/"out").images, slices.images)
    assert as_image_data(tmp_path/"out", size=8).shape == (8, 8)
    (tmp_path/"out"/"sick"/"00001.png").write_bytes((tmp_path/"out"/"sick"/"00001.png").read_bytes()[:60])
    with pytest.raises(DataError, match="00001.png cannot be read"): as_image_data(tmp_path/"out")

def test_two_calls_do_not_mix(tmp_path):
    "Catches images of two networks in one folder, of the same class or another, and a folder of something else that is written into."
    save_images(made_of(["mel"]), tmp_path/"out", seed=0)
    before = {f: (tmp_path/"out"/f).read_bytes() for f in files_in(tmp_path/"out")}
    for names, seed in ((["mel"], 0), (["mel"], 1), (["nv"], 0)):
        with pytest.raises(ParameterError, match="holds images.csv already, and images of two calls are not mixed"):
            save_images(made_of(names), tmp_path/"out", seed=seed)
    assert {f: (tmp_path/"out"/f).read_bytes() for f in files_in(tmp_path/"out")} == before
    (tmp_path/"new").mkdir()
    assert check_new_folder(tmp_path/"new") == tmp_path/"new" and check_new_folder(tmp_path/"none") == tmp_path/"none"
    assert not (tmp_path/"none").exists()
    with pytest.raises(ParameterError, match="is a file"): check_new_folder(tmp_path/"out"/"images.csv")

def test_refused_before_anything_is_written(tmp_path):
    "Catches numbers that would write one file twice, or leave images without one, and a set without images."
    data = made_of(["mel", "nv"])
    for numbers, what in (([0, 0, 0, 1], "0 is given twice in the class 'mel'"), ([0, 1], r"has shape \(2,\), but there are 4 images")):
        with pytest.raises(ParameterError, match=what): save_images(data, tmp_path/"out", numbers=numbers)
    with pytest.raises(ParameterError, match="fakes has no images"): save_images(data.subset(np.arange(0)), tmp_path/"out")
    assert os.listdir(tmp_path) == []

@pytest.mark.parametrize("was_there", [True, False])
def test_full_disk(tmp_path, monkeypatch, was_there):
    "Catches half of a folder that passes for the whole, and an error that does not name the folder."
    if was_there: (tmp_path/"out").mkdir()
    save, n = Image.Image.save, [0]
    def fails(self, *args, **options):
        n[0] += 1
        if n[0] == 3: raise OSError(28, "No space left on device")
        return save(self, *args, **options)
    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(OSError, match="out' cannot be written .No space left on device.; make room"):
        save_images(made_of(["mel", "nv"]), tmp_path/"out")
    assert list(tmp_path.rglob("*")) == ([tmp_path/"out"] if was_there else [])

def test_killed_between_two_renames(tmp_path, monkeypatch):
    "Catches a folder that was left half-way and passes for a smaller one."
    rename, n = Path.rename, [0]
    def dies(self, target):
        n[0] += 1
        if n[0] == 3: raise KeyboardInterrupt
        return rename(self, target)
    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt): save_images(made_of(["mel", "nv"]), tmp_path/"out")
    with pytest.raises(DataError, match=r"nv/00002.png is not there \(2 such files"): as_image_data(tmp_path/"out")
    with pytest.raises(ParameterError, match="holds images.csv already"): save_images(made_of(["mel"]), tmp_path/"out")
