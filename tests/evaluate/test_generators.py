"A generator beside floor and ceiling, whoever trained on what, and all images that cannot be compared."
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medgan.data.images import load_data
from medgan.data.registry import DataError
from medgan.data.splits import group_codes
from medgan.evaluate.features import ExtractorError, load_extractor
from medgan.evaluate.generators import Generated, evaluate
from medgan.evaluate.metrics import MetricError
from medgan.training.checkpoints import note_seen

@pytest.fixture(scope="module")
def phantoms():
    return load_data("phantom", size=32, n=600).split(dict(generated=.3, real=.4, held_out=.3))

def test_evaluate(phantoms, tmp_path, monkeypatch):
    "Catches features computed twice, classes mixed up, unequal numbers for floor and value, and an extractor without its name."
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    def run(): return evaluate(phantoms["generated"], phantoms["real"], phantoms["held_out"], n_splits=4)
    table = run()
    monkeypatch.setattr("medgan.evaluate.features.Extractor.of", lambda *a: pytest.fail("computed again"))
    assert table.equals(run())
    assert set(table.features) == {"HAM10000 CNN 2"}
    everything = table.loc["all"]
    assert (everything.n_generated == min(len(phantoms["generated"]), len(phantoms["held_out"]))).all()
    assert (everything.n_real == len(phantoms["real"])).all()
    assert everything.ceiling["fid"] > everything.floor["fid"] and everything.ceiling["precision"] < .2
    measured = [c for c in phantoms["real"].classes if ("kid" in table.loc[c].index)]
    by_class = table.xs("kid", level="metric").value
    assert measured and by_class["mean over classes"] == pytest.approx(by_class[measured].mean())

class Blend(torch.nn.Module):
    "A generator whose image is its latent's first number, everywhere; the label turns it darker."
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(.3))
    def forward(self, z, c): return torch.tanh(self.scale*z[:, :1] - c[:, None]/4)[:, :, None, None].expand(-1, 3, 32, 32)

def test_evaluate_generator(phantoms, tmp_path, monkeypatch):
    "Catches a generator left in evaluation mode, labels that do not reach it, a path length that is missing or depends on the run."
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    net = Blend().train()
    generated = Generated(net, 5, labels=phantoms["real"].labels.tolist(), classes=phantoms["real"].classes)
    data = generated.data()
    assert net.training and len(data) == len(phantoms["real"]) and data.labels.tolist() == phantoms["real"].labels.tolist()
    means = [data.read(np.flatnonzero(data.labels == k))["image"].mean() for k in (0, 6)]
    assert means[0] > means[1]
    def run(): return evaluate(generated, phantoms["real"], phantoms["held_out"], n_splits=2, n_path=100, per_class=False)
    table = run()
    ppl = table.loc[("all", "ppl")]
    assert ppl.low < ppl.value < ppl.high and table.equals(run())

def test_drawn_in_batches():
    "Catches an image that depends on how many are drawn at a time, a label that goes to another latent, and noise that is not fixed."
    net = Blend()
    generated = Generated(net, 5, labels=list(range(7)), n=7, seed=3)
    z = generated.latents()
    assert torch.equal(z, generated.latents()) and not torch.equal(z, Generated(net, 5, n=7).latents())
    images = generated.draw(z, generated.labels)
    with torch.no_grad(): assert torch.allclose(images, net(z, torch.arange(7)))
    assert torch.allclose(images, generated.draw(z, generated.labels, batch_size=2))
    with pytest.raises(MetricError, match="n=6, but there are 7 labels"): Generated(net, 5, labels=list(range(7)), n=6).data()

def folder_with(tmp_path, *names):
    "A folder with these files; images are grey squares."
    folder = tmp_path/"images"
    folder.mkdir()
    for name in names:
        if name.endswith(".png"): Image.new("RGB", (32, 32), (90, 90, 90)).save(folder/name)
        else: (folder/name).write_text("not an image")
    return str(folder)

BAD = {
    "size": (lambda p, t: load_data("phantom", size=64, n=60), MetricError, "generated images have 64 px"),
    "channels": (lambda p, t: torch.rand(40, 1, 32, 32), MetricError, "1 channels"),
    "too few": (lambda p, t: p["generated"].subset(np.arange(23)), MetricError, "generated: 23 images; at least 24"),
    "range": (lambda p, t: torch.rand(40, 3, 32, 32)*255, DataError, "allowed are -1 to 1"),
    "unscaled": (lambda p, t: torch.rand(40, 3, 32, 32), DataError, "2\\*x-1"),
    "nan": (lambda p, t: torch.full((40, 3, 32, 32), float("nan")), DataError, "NaN"),
    "empty folder": (lambda p, t: folder_with(t), DataError, "no images"),
    "text file": (lambda p, t: folder_with(t, "a.png", "notes.txt"), DataError, "notes.txt is no image"),
    "no folder": (lambda p, t: str(t/"nowhere"), DataError, "nowhere"),
    "generator without n": (lambda p, t: Generated(Blend(), 5), MetricError, "needs n"),
}

@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, phantoms, tmp_path):
    "Catches sets that are compared although they cannot be, and errors that do not say why."
    make, error, message = BAD[name]
    with pytest.raises(error, match=message): evaluate(make(phantoms, tmp_path), phantoms["real"], phantoms["held_out"])

def test_bad_extractor_and_parts(phantoms):
    "Catches an unknown extractor that falls back to another one, and a floor made of the very images it is to judge."
    generated, real = phantoms["generated"], phantoms["real"]
    with pytest.raises(ExtractorError, match="extractor='retina'"): evaluate(generated, real, phantoms["held_out"], "retina")
    with pytest.raises(MetricError, match="in the real and in the held-out part"): evaluate(generated, real, real)

def test_extractor_that_has_seen_the_images(phantoms, tmp_path, monkeypatch):
    "Catches a floor measured on images that trained the extractor, without a word in the table."
    monkeypatch.setenv("MEDGAN_CACHE", str(tmp_path))
    skin = load_extractor("skin")
    half = phantoms["held_out"].table.group.unique()[::2]
    knows = replace(skin, seen=tuple(group_codes(half).tolist()))
    with pytest.warns(UserWarning, match="was trained on .*% of the held-out images' groups") as caught:
        table = evaluate(phantoms["generated"], phantoms["real"], phantoms["held_out"], knows, n_splits=0, per_class=False)
    assert caught[0].filename == __file__
    assert table.seen.unique().tolist() == [phantoms["held_out"].table.group.isin(half).mean()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (evaluate(phantoms["generated"], phantoms["real"], phantoms["held_out"], skin, n_splits=0, per_class=False).seen == 0).all()

def test_generator_that_has_seen_the_images(phantoms):
    "Catches a generator that is judged beside images of the very lesions that trained it."
    net = Blend()
    real, held_out = phantoms["real"], phantoms["held_out"]
    note_seen(net, group_codes(real.groups))
    table = evaluate(Generated(net, 5, labels=[0]*60), real, held_out, n_splits=0, per_class=False, n_path=0)
    assert table.value.notna().any()
    note_seen(net, group_codes([held_out.groups.iloc[0]]))
    with pytest.raises(MetricError, match="generated: the groups of .*% of the held-out images trained the generator"):
        evaluate(Generated(net, 5, labels=[0]*60), real, held_out, n_splits=0, per_class=False, n_path=0)
