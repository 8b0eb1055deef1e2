"A race between generators: the clock, the marks, what is kept, and what a race that was stopped goes on with."
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medgan.analysis.race import Contestant, drawn_images, even_labels, judge_race, race, standings, train_for
from medgan.core.checks import ParameterError
from medgan.data.images import as_image_data
from medgan.evaluate.features import Extractor
from medgan.training.loop import Trainer, set_seed, training_seconds
from medgan.training.parameters import TrainingConfig, configure

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.full((2,), -.9))
    def forward(self, z, labels): return (self.level[labels] + 0*z[:, 0])[:, None, None, None].expand(-1, 3, 32, 32)

def train_toy(data, config=None, out_dir="", resume=False, **parameters):
    config, loop = configure(TrainingConfig, config, parameters)
    set_seed(config.seed)
    net = Toy()
    sgd = torch.optim.SGD(net.parameters(), config.lr)
    trainer = Trainer(dict(G=net), dict(G=sgd), config.seed, out_dir, config.stored(data), resume, **loop)
    def step(batch):
        trainer.update(sgd, -net.level.sum())                         # each step adds the learning rate
        return dict(level=net.level.mean())
    trainer.fit(step, data, config.epochs, config.batch_size)
    return trainer

TOY = Contestant(train_toy, lambda run: run.modules["G"], z_dim=3, settings=dict(lr=1e-4))

@pytest.fixture(scope="module")
def data():
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    return as_image_data(images, labels=(np.arange(60) % 3 == 0).astype(int), classes=["a", "b"])

def test_clock(data, tmp_path):
    "Catches a clock that counts steps, or that starts anew when a run goes on."
    first = train_for(TOY, data, .3, str(tmp_path), progress="")
    second = train_for(TOY, data, .6, str(tmp_path), progress="")
    assert .29 < training_seconds(first.history) < .6 and second.step > first.step
    assert training_seconds(second.history) >= .59 and second.history.step.is_monotonic_increasing
    assert second.modules["G"].level[0].item() == pytest.approx(-.9 + 1e-4*second.step, abs=1e-3)       # it did not begin again

def test_same_steps_whoever_times_them(data, tmp_path):
    "Catches slices of a run that are not the run: another order of the data, optimisers begun anew."
    run = train_for(TOY, data, .2, str(tmp_path), progress="")
    whole = train_toy(data, dict(lr=1e-4), epochs=run.step/len(data)*16*60/48, progress="")              # 3 batches of 16 an epoch
    assert whole.step == run.step and torch.equal(whole.modules["G"].level, run.modules["G"].level)

def test_marks(data, tmp_path):
    "Catches images of one mark that were drawn at another, and a race that begins anew."
    table = race(dict(toy=TOY), data, [.1, .3], tmp_path, seeds=[0], n=30, progress="")
    means = [drawn_images(file, data.classes).read(range(30))["image"].mean().item() for file in table.file]
    assert table.seconds.is_monotonic_increasing and table.kimg.is_monotonic_increasing and means[0] <= means[1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pd.testing.assert_frame_equal(race(dict(toy=TOY), data, [.1, .3], tmp_path, seeds=[0], n=30, progress=""), table)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

@pytest.mark.parametrize("marks", [[], [2., 1.], [1., 1.]])
def test_bad_marks(marks, data, tmp_path):
    "Catches marks that no run can reach in their order."
    with pytest.raises(ParameterError, match="marks="): race(dict(toy=TOY), data, marks, tmp_path)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "long"])
def test_bad_seconds(seconds, data, tmp_path):
    "Catches a training without end, or without a beginning."
    with pytest.raises(ParameterError, match="seconds="): train_for(TOY, data, seconds, str(tmp_path/"run"))
    assert not (tmp_path/"run").exists()

def test_labels_in_proportion(data):
    "Catches classes drawn evenly that are unequal in the data: a metric would call that a fault of the generator."
    assert np.bincount(even_labels(data, 30)).tolist() == [20, 10] and np.bincount(even_labels(data, 7)).tolist() == [5, 2]
    assert len(even_labels(data, 1000)) == 1000

def test_standings_are_over_trainings():
    "Catches the interval of one training's images taken for that of the method."
    rows = [dict(contestant=name, seed=seed, mark=1., kimg=1., features="f", metric="fid", value=level + seed, low=0., high=9., floor=0.,
                 ceiling=9.) for name, level in (("a", 1.), ("b", 5.)) for seed in range(3)]
    ranks = standings(pd.DataFrame(rows))
    a = ranks.loc[("f", "fid", 1., "a")]
    assert (a.value, a.n) == (2., 3) and a.high - a.value == pytest.approx(4.3027*1/3**.5, rel=1e-3)
    alone = standings(pd.DataFrame(rows[:1]))
    assert alone[["low", "high"]].isna().all().all()

def test_judged_in_each_kind_of_features(data, tmp_path):
    "Catches numbers of one extractor under another's name."
    means = Extractor("means", 3, lambda x: x.flatten(1).unfold(1, 1024, 512).mean(2), "test-means")
    spreads = Extractor("spreads", 3, lambda x: x.flatten(1).unfold(1, 1024, 512).std(2), "test-spreads")
    table = race(dict(toy=TOY), data, [.1], tmp_path, seeds=[0], n=60, progress="")
    training, held_out = data.subset(np.arange(60) % 2 == 0), data.subset(np.arange(60) % 2 == 1)
    judged = judge_race(table, training, held_out, [means, spreads], n_splits=0)
    values = judged[judged.metric == "fid"].set_index("features").value
    assert set(values.index) == {"means", "spreads"} and values["means"] != values["spreads"]
