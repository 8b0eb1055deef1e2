"`~` is the user's home wherever a path is given, and one function says so: no folder called ~ appears where a program was started."
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medgan.analysis.reader_study import read_answers, study_page
from medgan.cdcgan import generate, load_generator, train_cdcgan
from medgan.core.checks import ParameterError, check_out_dir, user_path
from medgan.core.plots import show_grid
from medgan.data.generated import save_images
from medgan.data.images import as_image_data, load_data
from medgan.data.prepare import cache_dir
from medgan.data.registry import DataError
from medgan.dermgan import DermGANStudy
from medgan.evaluate.features import ExtractorError, load_extractor
from medgan.models.stylegan2_weights import export_weights, read_tensors
from medgan.report.ledger import read_results, write_results
from medgan.report.pages import update_readme
from medgan.training.checkpoints import checkpoints, load_checkpoint, load_tensors, save_checkpoint, write_whole
from medgan.training.parameters import Study
from medgan.training.selection import keep_best

PACKAGE = Path(__file__).parent.parent.parent/"medgan"

@pytest.fixture
def home(tmp_path, monkeypatch):
    "A user's empty home; the program runs in another folder, where nothing may appear."
    for name in ("home", "work"): (tmp_path/name).mkdir()
    for variable in ("HOME", "USERPROFILE"): monkeypatch.setenv(variable, str(tmp_path/"home"))
    monkeypatch.chdir(tmp_path/"work")
    yield tmp_path/"home"
    assert not list((tmp_path/"work").iterdir())

def pictures(n=8): return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
def two_classes(): return as_image_data(pictures(), labels=["nv", "mel"]*4, classes=["nv", "mel"])

def test_user_path(home):
    "Catches a `~` inside a name that is taken for the home, and a user who does not exist as a raw error."
    assert user_path("~") == home and user_path(Path("~/a")) == home/"a" and user_path("a/~") == Path("a/~")
    with pytest.raises(ParameterError, match="^path='~nobody_of_this_name/a': there is no such user's home"):
        user_path("~nobody_of_this_name/a")
    for out_dir, what in (("a\0b", "has a null character"), ("~nobody_of_this_name/a", "no such user"), ("x"*300, "cannot be written")):
        with pytest.raises(ParameterError, match=f"^out_dir=.*{what}"): check_out_dir(out_dir)
    with pytest.raises(DataError, match="^ham10000: data_dir=.*no such user"): load_data("ham10000", "~nobody_of_this_name/a")

def test_one_function_says_it():
    "Catches a second way: `Path(x).expanduser()` where `user_path` says what is meant, and refuses what no path is."
    assert [p.name for p in sorted(PACKAGE.rglob("*.py")) if "expanduser" in p.read_text(encoding="utf-8")] == ["checks.py"]

def test_data(home, monkeypatch):
    "Catches a set, its boxes or its groups that are looked for under ~, and a cache that is made there."
    for i, x in enumerate(pictures(4)):
        (home/"mine"/"ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(home/"mine"/"ab"[i % 2]/f"p{i//2}_{i}.png")
    (home/"groups.csv").write_text("id,group\n" + "".join(f"{'ab'[i % 2]}/p{i//2}_{i},P{i//2}\n" for i in range(4)))
    (home/"boxes.csv").write_text("id,x0,y0,x1,y1\na/p0_0,2,2,20,20\n")
    monkeypatch.setenv("MEDGAN_CACHE", "~/cache")
    data = load_data("folder", "~/mine", 16, groups="~/groups.csv", boxes="~/boxes.csv")
    assert data.table.group.nunique() == 2 and data.table.boxes[0] == ((1, 1, 10, 10),) and cache_dir() == home/"cache"
    monkeypatch.setenv("MEDGAN_DATA", "~/mine")
    assert len(load_data("folder", size=16, groups="~/groups.csv")) == 4 and (home/"cache").is_dir()

def test_images(home):
    "Catches pictures and generated images that land under ~."
    show_grid(pictures(), zoom=1).save("~/grid.png")
    save_images(two_classes(), "~/made")
    assert (home/"grid.png").is_file() and len(as_image_data("~/made")) == 8

def test_training(home):
    "Catches a run that is kept under ~, or not found in the home."
    train_cdcgan(two_classes(), out_dir="~/run", epochs=1, z_dim=4, width=2, batch_size=4, progress="")
    assert len(checkpoints("~/run")) == 1 and load_generator("~/run")[1].z_dim == 4
    generate("~/run", 2, "mel", out_dir="~/drawn")
    assert sorted(p.name for p in home.iterdir()) == ["drawn", "run"]

def test_checkpoints(home):
    "Catches weights that are written or looked for under ~."
    save_checkpoint("~/a.safetensors", dict(net=dict(w=torch.ones(1))), dict(width=3))
    assert load_checkpoint("~/a.safetensors")[1] == dict(width=3) and len(load_tensors("~/a.safetensors")) == 1
    write_whole("~/deep/b.txt", b"b")
    assert export_weights(nn.Linear(2, 3), "~/c.safetensors").keys() == read_tensors("~/c.safetensors").keys()
    for epochs in (2, 0):               # trained, then read again
        history = keep_best(nn.Linear(1, 1), (dict(val=v) for v in range(epochs)), "val", 2, 2, keep_in="~/best.safetensors")
        assert len(history) == 2
    assert sorted(p.name for p in home.iterdir()) == ["a.safetensors", "best.safetensors", "c.safetensors", "deep"]
    with pytest.raises(ExtractorError, match=f"no weights at {home}"): load_extractor("inception", "~/none.pth")

def test_ledger(home):
    "Catches results that are stored under ~."
    shutil.copytree(PACKAGE.parent/"data"/"published", home/"ledger"/"published")
    (home/"a.png").write_bytes(b"a")
    write_results("cdcgan", "mine", [], data=dict(name="x", size=8, n=1, fingerprint="f"), parameters={}, seeds=[0], wall_s=1, device="CPU",
                  root="~/ledger", figures={"fig.png": "~/a.png"})
    assert read_results("cdcgan", "mine", "~/ledger")["run"] == "mine" and (home/"ledger"/"results"/"cdcgan"/"mine"/"fig.png").is_file()
    (home/"README.md").write_text("no markers")
    with pytest.raises(ValueError, match="README.md: needs the markers"): update_readme("~/README.md", "~/ledger")

def test_reader_study(home):
    "Catches a page whose key lands elsewhere than the page, and answers that are looked for under ~."
    key = study_page("~/page.html", two_classes(), two_classes(), n=2)
    assert key == home/"page.key.json" and (home/"page.html").is_file()
    told = json.loads(key.read_text())
    rows = [f"{told['study']},A,{item},yes,9" for item in told["items"]]
    (home/"answers.csv").write_text("\n".join(["study,reader,item,answer,ms", *rows]))
    assert len(read_answers("~/answers.csv", "~/page.key.json")) == 8

def test_notebooks(home):
    "Catches a parameter that a notebook makes paths of, such as {out_dir}/detectors, and a file that is said not to be there."
    assert Study(out_dir="~/runs", resume=True).out_dir == str(home/"runs") and Study().out_dir == ""
    (home/"boxes.csv").write_text("")
    assert DermGANStudy(boxes_csv="~/boxes.csv").boxes_csv == "~/boxes.csv"
    (home/"file").write_text("")
    with pytest.raises(ParameterError, match="out_dir='~/file': is a file"): Study(out_dir="~/file")
