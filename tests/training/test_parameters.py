"What every training and every notebook is told: refused by name, all at once, and never against what the data say."
import numpy as np
import pytest
from small_runs import CONFIG, contents, toy_data, train

from medgan.cdcgan import CDCGANConfig, train_cdcgan
from medgan.core.checks import ParameterError, check
from medgan.data.images import as_image_data
from medgan.training.checkpoints import checkpoints, load_checkpoint
from medgan.training.parameters import LoopConfig, Study, TrainingConfig, configure

GOOD = dict(data="phantom", data_dir="", groups="", size=32, epochs=2., batch_size=64, lr=2e-4, seed=0, out_dir="", resume=False,
            results="")
NAN, INF = float("nan"), float("inf")
BAD = [*[("size", v, "must be a whole number from 8 to 1024") for v in (0, -32, 7, 32.5, 1025, NAN, INF, "64", True, None, [64])],
       *[("epochs", v, "must be a number above 0 and up to 1000000") for v in (0, -1, NAN, INF, -INF, "2", True, None, 1e7, [1])],
       *[("batch_size", v, "must be a whole number from 2 to 65536") for v in (0, -64, 1, 2.5, NAN, INF, "64", True, None, 10**6, 10**400)],
       *[("lr", v, "must be a number above 0 and up to 1") for v in (0, -2e-4, NAN, INF, "2e-4", True, None, 2)],
       *[("seed", v, "must be a whole number from 0 to 2147483647") for v in (-1, .5, NAN, INF, "0", True, None, 2**31)],
       *[("resume", v, "must be True or False") for v in (1, 0, "yes", None, NAN)],
       *[("data", v, "must be text") for v in (0, True, None, [], NAN)], ("data", "ham1000", "no such data set; known are"),
       *[("results", v, "must be a name of letters") for v in ("../x", "a/b", " a", "-x", ".x", "x\n", "a"*101, 3)],
       *[("out_dir", v, "must be text") for v in (5, True, 1.5)]]            # papermill reads `-p out_dir 5` as a number

@pytest.mark.parametrize("name, value, allowed", BAD, ids=[f"{n}={str(v)[:8]!r}" for n, v, _ in BAD])
def test_bad_parameters(name, value, allowed, tmp_path, monkeypatch):
    "Catches a value that slips through or ends in a TypeError: the message has the parameter, the value and what is allowed."
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError) as caught: check(Study, GOOD | {name: value})
    said = repr(value) if len(repr(value)) <= 60 else repr(value)[:50]
    assert str(caught.value).startswith(f"{name}={said}") and allowed in str(caught.value) and len(str(caught.value)) < 400
    assert not list(tmp_path.iterdir())

def test_good_parameters(tmp_path):
    "Catches a check that refuses too much."
    assert dict(check(Study, GOOD)) == GOOD
    wide = dict(epochs=.01, batch_size=2, lr=1, seed=2**31 - 1, size=1024, out_dir=str(tmp_path/"new"), resume=True, results="a-run_2.0")
    assert dict(check(Study, GOOD | wide)) == GOOD | wide
    assert not list(tmp_path.iterdir())

def test_whole_floats_are_counts():
    "Catches a converted value that is checked and thrown away: range(64.0) fails hours later."
    made = check(Study, GOOD | dict(batch_size=64., size=np.float64(32), seed=np.int64(3), epochs=2))
    assert [type(v) for v in (made.batch_size, made.size, made.seed, made.epochs)] == [int, int, int, float]

def test_resume_without_folder():
    "Catches resume=True that starts a new run in silence."
    with pytest.raises(ParameterError, match="resume=True: out_dir is empty"): check(Study, GOOD | dict(resume=True))

# ---- a trainer's

def test_classes_in_another_order():
    "Catches classes swapped between configuration and data: the generator would draw the wrong diagnosis under each name."
    images = np.zeros((16, 32, 32, 3), np.uint8)
    data = as_image_data(images, labels=["dark", "bright"]*8)
    assert data.classes == ("bright", "dark")
    for swapped in (dict(classes=["dark", "bright"]), CDCGANConfig(classes=("dark", "bright"))):
        with pytest.raises(ParameterError) as caught: train_cdcgan(data, swapped, progress="")
        assert str(caught.value) == ("classes: the configuration has dark, bright, the data bright, dark; "
                                     "they must be the same, in the same order")
    with pytest.raises(ParameterError, match="size: the configuration has 64, the data 32"): train_cdcgan(data, size=64)

def test_all_that_contradicts_the_data():
    "Catches a second error that is only found when the first is mended."
    with pytest.raises(ParameterError) as caught: train_cdcgan(toy_data(), size=64, classes=["c", "b", "a"])
    assert "size: the configuration has 64, the data 32" in str(caught.value)
    assert "classes: the configuration has c, b, a, the data a, b, c" in str(caught.value)

def test_loop_and_configuration_are_refused_together():
    "Catches an option of the loop that is found only when the rest is right."
    with pytest.raises(ParameterError) as caught: train_cdcgan(toy_data(), dict(width=0), lr=NAN, log_every=0, keep=-1)
    assert all(f"{name}: must be" in str(caught.value) for name in ("width=0", "lr=nan", "log_every=0", "keep=-1"))

@pytest.mark.parametrize("config", [3, "laptop", [], [("lr", 1)], CDCGANConfig])
def test_what_is_no_configuration(config):
    "Catches the epochs of another signature taken for a configuration, with an error from deep inside."
    message = "config=.*must be a configuration, a dict of parameters or None"
    with pytest.raises(ParameterError, match=message): train_cdcgan(toy_data(), config)

def test_later_wins(tmp_path):
    "Catches single parameters that a configuration overrides, a default that overrides either, and a loop's option that is stored."
    run = train_cdcgan(toy_data(), CDCGANConfig(**CONFIG | dict(size=32, classes=["a", "b", "c"])), str(tmp_path), epochs=.2, width=2,
                       progress="", log_every=1, salt=4)
    _, stored = load_checkpoint(checkpoints(tmp_path)[-1])
    assert run.step == 1 and (stored["width"], stored["z_dim"], stored["lr"]) == (2, 8, 2e-4)
    assert not stored.keys() & LoopConfig.model_fields.keys() and stored["classes"] == ["a", "b", "c"] and stored["size"] == 32

def test_given_is_not_changed():
    "Catches a trainer that writes into the dict it is given: the next run would be another."
    given = dict(width=2, z_dim=4)
    configure(CDCGANConfig, given, dict(lr=.1), dict(size=32, classes=("a",)), dict(gp=0.))
    assert given == dict(width=2, z_dim=4)

class Ends(TrainingConfig):
    "A training whose learning rate depends on its end."
    ends = True

def test_epochs_are_stored_where_they_matter():
    "Catches a run whose learning rate has fallen to 0 and that goes on, and one that may not go on although it could."
    assert "epochs" in Ends().stored(toy_data()) and "epochs" not in TrainingConfig().stored(toy_data())
    assert TrainingConfig().stored(toy_data()) | dict(name=0) == dict(batch_size=16, lr=2e-4, seed=0, precision="no", data="toy",
                                                                     fingerprint="toy-0", name=0)

def test_checks_come_before_anything_is_built(tmp_path, monkeypatch):
    "Catches networks that are built, or a folder that is made, for parameters that are refused afterwards."
    def fail(*_): raise AssertionError("built")
    monkeypatch.setattr("medgan.cdcgan.build_cdcgan", fail)
    for wrong in (dict(lr=-1), dict(learning_rate=1), dict(log_every=0), dict(classes=["b", "a"])):
        with pytest.raises(ParameterError): train(tmp_path/"run", **wrong)
    assert contents(tmp_path) == {}
