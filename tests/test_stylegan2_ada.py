"The notebook of StyleGAN2-ADA: its checks, its data, colours of skin, and what stays of a run."
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data, load_data
from medgan.data.registry import DataError
from medgan.evaluate.colours import colour_leak, skin_colours
from medgan.models.stylegan2 import PRESETS, preset
from medgan.models.stylegan2_augment import Augment
from medgan.stylegan2_ada import ROWS, StyleGAN2Study, benign_malignant, row_setting, training_config, validation_gap

NOTEBOOK = Path(__file__).parent.parent/"nbs"/"03_stylegan2_ada.ipynb"

def of_classes(*classes, n=4):
    "Images that tell themselves apart by their brightness."
    labels = np.arange(n*len(classes)) % len(classes)
    pixels = np.full((len(labels), 16, 16, 3), 100, np.uint8) + np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return as_image_data(pixels, labels=labels, classes=list(classes))

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults, or does not use the value that was checked."
    p = run_notebook(NOTEBOOK, "epochs = 5; n_splits = 4.")["p"]
    assert p.epochs == 5 and (p.n_splits, type(p.n_splits)) == (4, int)

BAD = [("data = 'ham1000'", "data='ham1000': no such data set"), ("size = 48", "size=48: must be one of 16, 32, 64"),
       ("size = 8", "size=8"), ("epochs = 0", "epochs=0"), ("lr = -1", "lr=-1"),
       ("widths = 'paper'", "widths='paper': must be one of 'laptop', 'auto', 'paper256'"),
       ("precision = 'fp16'", "precision='fp16'"), ("fixed_p = 1.5", "fixed_p=1.5"), ("mixing = 2", "mixing=2"),
       ("target = 3", "target=3"), ("ada_kimg = 0", "ada_kimg=0"), ("gamma = -1", "gamma=-1"), ("n_images = 10", "n_images=10"),
       ("n_judged = 0", "n_judged=0"), ("patience = -1", "patience=-1"), ("mirror = 1", "mirror=1"),
       ("pipe = 'bg'", "pipe: no such parameter"), ("base = 16", "base=16: must be 0, or at least size=32"),
       ("n_path = 2", "n_path=2: must be 0, or from 10"), ("results = 'ham10000_64px'", "results='ham10000_64px'"),
       ("resume = True", "out_dir is empty")]

@pytest.mark.parametrize("injected, message", BAD, ids=[b[0] for b in BAD])
def test_bad_set_up(injected, message, refuses):
    "Catches a parameter that the setup cell does not check."
    refuses(NOTEBOOK, injected, ParameterError, message)

@pytest.mark.parametrize("widths", PRESETS)
def test_configuration(widths):
    "Catches a preset's value in the place of one that is given, a 0 taken for a value, and a rate that the preset brings."
    left, given = (StyleGAN2Study(widths=widths, size=64, lr=.01, **own) for own in (dict(base=0, most=0), dict(base=128, most=7, gamma=3)))
    of_preset, config, own = preset(widths, 64, 8), training_config(left), training_config(given)
    assert all(getattr(config, name) == value for name, value in of_preset.items() if name != "lr") and config.lr == .01
    assert (own.base, own.most, own.gamma) == (128, 7, 3) and own.changed(base=config.base, most=config.most, gamma=config.gamma) == config
    assert (config.mirror, config.target, config.ada_kimg, config.size, config.batch_size) == (True, .6, 1, 64, 8)

def test_images_smaller_than_the_size(tiny_ham, run_notebook):
    "Catches a training on enlarged images, whose blur the generator would learn, with a warning that nobody reads."
    def opened(size):
        folder = str(tiny_ham.parent)
        return run_notebook(NOTEBOOK, f"data = 'ham10000'; size = {size}; data_dir = {folder!r}", "benign_malignant(whole).split")
    with pytest.raises(DataError, match="smallest image has 30 px.*choose a smaller size"): opened(32)
    assert opened(16)["parts"]["train"].classes == ("benign", "malignant")

def test_sets_that_are_too_small(tiny_ham, run_notebook):
    "Catches a batch or a test part that is found to be impossible only after the first rows have been trained."
    ham = f"data = 'ham10000'; size = 16; data_dir = {str(tiny_ham.parent)!r}; "
    with pytest.raises(ParameterError, match="batch_size=20: the training set has only"):
        run_notebook(NOTEBOOK, ham + "batch_size = 20", "trained_on = ")
    with pytest.raises(DataError, match="images in the test part, the metrics need 24"):
        run_notebook(NOTEBOOK, ham + "batch_size = 2", "trained_on = ")

def files_in(folder):
    "When checkpoints and judgements were written."
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.suffix in (".safetensors", ".json")}

def test_few_images_are_trained_on_longer(run_notebook, tmp_path):
    "Catches rows with unequal budgets, and a resumed run that trains or judges again what it has."
    small = f"epochs = .06; n_images = 100; n_judged = 2; base = 128; most = 8; size = 16; out_dir = {str(tmp_path/'run')!r}"
    made = run_notebook(NOTEBOOK, small, "trainers, curves = {}, {}")
    steps = {row: t.step for row, t in made["trainers"].items()}
    assert len(set(steps.values())) == 1 and [*steps] == [*ROWS]
    files = files_in(tmp_path/"run")
    again = run_notebook(NOTEBOOK, small + "; resume = True", "trainers, curves = {}, {}")
    assert files and files == files_in(tmp_path/"run")
    assert all(a.fid.tolist() == again["curves"][row].fid.tolist() for row, a in made["curves"].items())

def test_stops_when_fid_has_turned(run_notebook):
    "Catches a patience that is never asked, and a row that goes on after its FID has stopped falling (weights that do not move: it stays)."
    still = "epochs = .06; n_images = 100; n_judged = 4; patience = 1; base = 128; most = 8; size = 16; lr = 1e-12"
    made = run_notebook(NOTEBOOK, still, "chosen = {row")
    assert {len(c) for c in made["curves"].values()} == {2} and {t.step for t in made["trainers"].values()} == {4}
    assert all(made["chosen"][row] == c.file[0] for row, c in made["curves"].items())

# ---- data

def test_benign_and_malignant():
    "Catches carcinomas counted as benign, classes in the wrong order, and a set in which the question makes no sense."
    ham = benign_malignant(of_classes("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))
    assert ham.classes == ("benign", "malignant") and ham.table.dx.value_counts().to_dict() == dict(benign=16, malignant=4)
    swapped = benign_malignant(of_classes("malignant", "benign", "unknown"))
    assert swapped.classes == ("benign", "malignant") and len(swapped) == 8
    assert (swapped.table.dx == np.array(swapped.classes)[swapped.labels]).all()
    for classes in (("nv", "bcc"), ("mel", "bcc"), ("a", "b")):
        with pytest.raises(DataError, match="needed are benign and malignant, or mel and one of nv"): benign_malignant(of_classes(*classes))

def test_rows_of_table_1():
    "Catches a row that is trained on the other class, or augmented as another one."
    data = of_classes("benign", "malignant")
    rows = {row: row_setting(row, data, .3) for row in ROWS}
    shown = [rows[r][0].table.dx.unique().tolist() for r in ("ben_gan", "mal_gan", "cgan")]
    assert shown == [["benign"], ["malignant"], ["benign", "malignant"]]
    told = {r: (own["pipe"], own["p"], len(own["classes"])) for r, (_, own) in rows.items()}
    assert told == dict(ben_gan=("bgc", None, 0), mal_gan=("bgc", None, 0), cgan=("bgc", None, 2), cgan_wo_color=("bg", None, 2),
                        cgan_wo_augmentation=("none", 0., 2), cgan_fixed=("bgc", .3, 2), cgan_wo_color_fixed=("bg", .3, 2))
    with pytest.raises(ParameterError, match="row='gan'"): row_setting("gan", data)

# ---- colours

def test_colour_augmentation_is_seen():
    "Catches a measure that is blind to what it is made for."
    images = load_data("phantom", size=32, n=200).read(np.arange(200))["image"]
    torch.manual_seed(0)
    seen = {name: skin_colours(Augment(name, .5)(images).clamp(-1, 1)) for name in ("bg", "color")}
    leak = {name: colour_leak(colours, skin_colours(images), 5).value for name, colours in seen.items()}
    assert leak["color"]["hue"] > 10*leak["bg"]["hue"] and leak["color"]["odd"] > .2 > leak["bg"]["odd"]

def test_gap_of_a_discriminator():
    "Catches the roles of held-out and generated images exchanged."
    train, test, made = torch.tensor([1., 3.]), torch.tensor([1., 1., 1.]), torch.tensor([-2.])
    assert validation_gap(train, test, made) == pytest.approx(.25) and validation_gap(train, made, made) == pytest.approx(1)
