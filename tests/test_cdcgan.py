"The cDCGAN notebook refuses bad parameters before it reads data; its networks train, keep, load and draw."
import json

import numpy as np
import pandas as pd
import pytest
import torch
from nbdev.config import get_config
from safetensors.torch import save_file

from medgan.analysis.privacy import privacy_report
from medgan.analysis.reader_study import study_page
from medgan.cdcgan import (
    PROTOCOLS,
    SIZES,
    CDCGANConfig,
    build_cdcgan,
    cdcgan_step,
    generate,
    load_generator,
    protocol_parts,
    sample_images,
    share_seen,
    soft_labels,
    train_cdcgan,
)
from medgan.core.checks import ParameterError
from medgan.core.plots import as_uint8
from medgan.data.images import as_image_data, load_data
from medgan.evaluate.generators import evaluate
from medgan.training.checkpoints import CheckpointError, save_checkpoint
from medgan.training.loop import Trainer

NOTEBOOK = get_config().nbs_path/"01_cdcgan.ipynb"
CLASSES = ("nv", "bcc", "mel", "bkl")
CONFIG = dict(epochs=1, z_dim=8, width=4, batch_size=8)

# ---- the notebook's own checks

def test_good_set_up(run_notebook):
    "Catches a setup cell that refuses its own defaults, or does not use the value that was checked."
    p = run_notebook(NOTEBOOK, "epochs = 1; n_splits = 4.")["p"]
    assert p.epochs == 1 and (p.n_splits, type(p.n_splits)) == (4, int)

BAD = [("data = 'ham1000'", "data='ham1000': no such data set; known are"), ("size = 256", "size=256"),
       ("size = 48", "size=48: must be one of 32, 64, 128"), ("epochs = 0", "epochs=0"), ("epochs = float('nan')", "epochs=nan"),
       ("epochs = 'many'", "epochs='many'"), ("batch_size = -64", "batch_size=-64"), ("batch_size = 1.5", "batch_size=1.5"),
       ("lr = 0", "lr=0"), ("lr = 'fast'", "lr='fast'"), ("lr = -1e-4", "lr=-0.0001"), ("seed = -1", "seed=-1"),
       ("epocs = 3", "epocs: no such parameter; do you mean epochs?"), ("resume = True", "out_dir is empty"), ("gp = -1", "gp=-1"),
       ("precision = 'fp8'", "precision='fp8'"), ("n_seeds = 1", "n_seeds=1"),
       ("detector_size = 64", "detector_size=64: must be at most size=32"), ("z_dim = 0", "z_dim=0"), ("width = 'wide'", "width='wide'"),
       ("momentum = 0", "momentum=0"), ("spectral = 1", "spectral=1"), (f"out_dir = {str(NOTEBOOK)!r}", "is a file; name a folder")]

@pytest.mark.parametrize("injected, message", BAD, ids=[b[0][:24] for b in BAD])
def test_bad_set_up(injected, message, refuses):
    "Catches a parameter that the setup cell does not check: hours later it would fail, or worse, not fail."
    refuses(NOTEBOOK, injected, ParameterError, message)

# ---- the networks

@pytest.fixture(scope="module")
def phantoms():
    return load_data("phantom", size=32, n=160, classes=list(CLASSES))

@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    "A run folder."
    out_dir = tmp_path_factory.mktemp("run")
    train_cdcgan(phantoms, CONFIG, str(out_dir), progress="")
    return out_dir

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch_norm, spectral, gp", [(True, True, 10.), (False, False, 0.)])
def test_step_at_every_size(size, batch_norm, spectral, gp):
    "Catches a layer too many or too few at one of the sizes, and a switch that breaks the step."
    G, D = build_cdcgan(CDCGANConfig(**CONFIG, size=size, classes=CLASSES, batch_norm=batch_norm, spectral=spectral))
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in (G, D)]
    trainer = Trainer(dict(G=G, D=D), dict(G=optimizers[0], D=optimizers[1]), progress="")
    terms = cdcgan_step(G, D, *optimizers, trainer.update, gp)(dict(image=torch.rand(4, 3, size, size)*2 - 1, label=torch.arange(4)))
    assert all(torch.isfinite(v) for v in terms.values()) and (terms["penalty"] == 0) == (gp == 0)
    assert all(p.requires_grad for p in D.parameters())

def test_generate(trained, tmp_path):
    "Catches images that depend on anything but checkpoint, class and seed, and files that differ from the tensors."
    images = generate(trained, 5, "mel", seed=3, out_dir=str(tmp_path/"images"))
    torch.manual_seed(99)
    assert torch.equal(images, generate(trained, 5, "mel", seed=3)) and not torch.equal(images, generate(trained, 5, "nv", seed=3))
    assert images.shape == (5, 3, 32, 32) and images.abs().max() <= 1
    assert sorted(p.name for p in (tmp_path/"images"/"mel").iterdir()) == [f"3-{i:05d}.png" for i in range(5)]
    assert np.array_equal(as_image_data(tmp_path/"images").images, as_uint8(images))
    both = generate(trained, 5, ["nv", "mel"], seed=3)
    torch.testing.assert_close(both, torch.cat([generate(trained, 5, "nv", seed=3), images]), rtol=1e-4, atol=1e-5)

SLASHED = ["O/E - ecchymoses present", "../nv", "NV", "nv"]

def test_generated_folder_is_judged_with_its_classes(tmp_path):
    "Catches a class whose name is no folder's: files elsewhere, or a folder that metrics and studies know by other classes."
    real = load_data("phantom", size=32, n=400, classes=list(CLASSES)).merge({new: [old] for new, old in zip(SLASHED, CLASSES)})
    train_cdcgan(real.subset(range(48)), out_dir=str(tmp_path/"run"), progress="", **CONFIG)
    with pytest.warns(UserWarning, match="4 classes have names that no folder can have"):
        images = generate(tmp_path/"run", 30, SLASHED, seed=1, out_dir=str(tmp_path/"made"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "run"] and len(list((tmp_path/"made").iterdir())) == 5
    made = as_image_data(tmp_path/"made", classes=SLASHED)
    for i, c in enumerate(SLASHED): assert np.array_equal(made.select([c]).images[made.select([c]).rows], as_uint8(images[30*i:30*i + 30]))
    table = evaluate(tmp_path/"made", real, n_splits=0)
    assert set(SLASHED) <= set(table.index.get_level_values("class")) and (table.loc["all"].n_generated == 120).all()
    pd.testing.assert_frame_equal(table.loc["all"], evaluate(made, real, n_splits=0).loc["all"])
    parts = real.split()
    report = privacy_report(tmp_path/"made", parts["train"], parts["test"], false_alarm=.2)
    assert report.generated.table.dx.value_counts().to_dict() == dict.fromkeys(SLASHED, 30)
    key = study_page(tmp_path/"page.html", real, tmp_path/"made", "condition", n=3)
    assert set(json.loads(key.read_text())["conditions"]) == set(SLASHED)

def test_generate_refuses(trained, tmp_path):
    "Catches a wrong class, a folder without a run and a checkpoint of something else."
    with pytest.raises(ParameterError, match="dx='wart': must be one of 'nv', 'bcc', 'mel', 'bkl'"): generate(trained, 1, "wart")
    with pytest.raises(ParameterError, match="n=0"): generate(trained, 0, "nv")
    for dx in ([], ["nv", "nv"]):
        with pytest.raises(ParameterError, match="name at least one class, each once"): generate(trained, 1, dx)
    (tmp_path/"used").mkdir()
    (tmp_path/"used"/"notes.txt").write_text("")
    with pytest.raises(ParameterError, match="holds notes.txt already"): generate(trained, 1, "nv", out_dir=tmp_path/"used")
    with pytest.raises(CheckpointError, match="holds no checkpoint"): generate(tmp_path, 1, "nv")
    with pytest.raises(CheckpointError, match="is not there"): generate(tmp_path/"none.safetensors", 1, "nv")
    save_file({"w": torch.zeros(1)}, tmp_path/"foreign.safetensors")
    with pytest.raises(CheckpointError, match="no medgan checkpoint"): generate(tmp_path/"foreign.safetensors", 1, "nv")
    save_checkpoint(tmp_path/"other.safetensors", dict(net={}), dict(width=3))
    with pytest.raises(CheckpointError, match="no checkpoint of a cDCGAN"): generate(tmp_path/"other.safetensors", 1, "nv")

def test_samples_do_not_depend_on_the_batch(trained):
    "Catches a generator left in training mode, where batch norm mixes the images of a batch."
    G, _ = load_generator(trained)
    G.train()
    z, c = torch.randn(7, 8), torch.arange(7) % 4
    torch.testing.assert_close(sample_images(G, z, c, batch_size=2), sample_images(G, z, c), rtol=1e-4, atol=1e-5)
    assert G.training

def test_soft_labels_continue_hard_ones(trained):
    "Catches an interpolation whose ends are not the classes themselves."
    G, _ = load_generator(trained)
    z = torch.randn(2, 8)
    torch.testing.assert_close(sample_images(G, z, soft_labels(1, 3, 4, torch.tensor([0., 1.]))), sample_images(G, z, torch.tensor([1, 3])))

# ---- the three ways to split

@pytest.mark.parametrize("seed", [1, 2, 7])
def test_protocols(phantoms, seed):
    "Catches a leak where none may be, none where one is to be shown, and a test part that is balanced although it must not be."
    parts = {p: protocol_parts(phantoms, p, seed) for p in PROTOCOLS}
    seen = {p: (share_seen(s["train"], s["test"], "id"), share_seen(s["train"], s["test"])) for p, s in parts.items()}
    assert seen["by lesion"] == (0, 0) and seen["by image"][0] == 0 < seen["by image"][1] and seen["oversampled first"][0] > 0
    for p, s in parts.items():
        counts = {name: s[name].table.dx.value_counts() for name in ("train", "test")}
        if p != "oversampled first":
            assert counts["train"].nunique() == 1 and counts["test"].nunique() > 1
            assert len(s["val"]) + len(s["test"]) + s["train"].table.id.nunique() == len(phantoms)
    with pytest.raises(ParameterError, match="protocol='by luck'"): protocol_parts(phantoms, "by luck", 0)
