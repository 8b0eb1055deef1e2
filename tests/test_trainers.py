"Every trainer runs by its defaults, says what it takes and refuses by name; its loader refuses a stranger's file before it builds."
import inspect
import json
import math
import re
import time

import numpy as np
import pytest
import torch

from medgan.cdcgan import CDCGANConfig, load_generator, train_cdcgan
from medgan.core.checks import ParameterError
from medgan.data.crops import roi_crops
from medgan.data.images import as_image_data, load_data
from medgan.data.splits import group_codes
from medgan.dermgan import DermGANConfig, MapData, load_dermgan, train_dermgan
from medgan.evaluate.general_features import AutoencoderConfig, fit_autoencoder
from medgan.models.cyclegan import (
    CycleGANConfig,
    TranslationConfig,
    TwoDomains,
    train_conditional_gan,
    train_cyclegan,
)
from medgan.models.projected_gan import ProjectedGANConfig, load_projected_gan, train_projected_gan
from medgan.models.stylegan2_train import StyleGAN2Config, load_stylegan2, train_stylegan2
from medgan.pathology_factorization import (
    FactorizationConfig,
    PathologyData,
    domains,
    load_factorization,
    train_factorization,
)
from medgan.training.checkpoints import CheckpointError, checkpoints, load_checkpoint, save_checkpoint
from medgan.training.parameters import LoopConfig

def skin(): return load_data("phantom", size=32, n=80, classes=["mel", "nv"])
def two(): return TwoDomains(*(as_image_data(np.random.default_rng(i).integers(0, 256, (8, 32, 32), np.uint8)) for i in range(2)))
def maps(): return MapData(roi_crops(load_data("phantom", size=64, n=50, classes=["mel", "nv"]), 32, 1, 0))
def brain():
    parts = domains(load_data("tumour_phantom", size=52, n_subjects=8, n_slices=3))
    return PathologyData(parts["pathological"], parts["healthy"])

TRAINERS = dict( # data, trainer, configuration, loader, what its loader builds networks by
    cdcgan=(skin, train_cdcgan, CDCGANConfig, load_generator, "medgan.cdcgan.build_cdcgan"),
    stylegan2=(skin, train_stylegan2, StyleGAN2Config, load_stylegan2, "medgan.models.stylegan2_train.build_stylegan2"),
    projected=(skin, train_projected_gan, ProjectedGANConfig, load_projected_gan, "medgan.models.projected_gan.build_projected_gan"),
    conditional=(two, train_conditional_gan, TranslationConfig, None, ""),
    cyclegan=(two, train_cyclegan, CycleGANConfig, None, ""),
    autoencoder=(skin, fit_autoencoder, AutoencoderConfig, None, ""),
    dermgan=(maps, train_dermgan, DermGANConfig, load_dermgan, "medgan.dermgan.build_dermgan"),
    factorization=(brain, train_factorization, FactorizationConfig, load_factorization,
                   "medgan.pathology_factorization.build_factorization"))
each = pytest.mark.parametrize("name", TRAINERS)
each_loader = pytest.mark.parametrize("name", [name for name, row in TRAINERS.items() if row[3]])

@pytest.fixture(scope="module")
def data():
    "data(name): the training part of each, made once."
    made = {}
    def get(name):
        make = TRAINERS[name][0]
        if make not in made: made[make] = make()
        return made[make]
    return get

@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    "trained(name): a run by nothing but defaults and a folder."
    runs = {}
    def get(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            runs[name] = TRAINERS[name][1](data(name), out_dir=str(folder)), folder
        return runs[name]
    return get

# ---- defaults and help

@each
def test_defaults(name, trained):
    "Catches a trainer that needs what nobody lists, defaults that do not train, and a configuration that is not stored with its weights."
    run, folder = trained(name)
    config = TRAINERS[name][2]
    assert run.step == run.total > 0 and np.isfinite(run.history.drop(columns="epoch").to_numpy(float, na_value=0)).all()
    assert all(torch.isfinite(value).all() for net in run.modules.values() for value in net.state_dict().values())
    _, stored = load_checkpoint(checkpoints(folder)[-1])
    assert stored.keys() | {"epochs"} == config.model_fields.keys() | {"data", "fingerprint"}
    assert "epochs" in stored or not config.ends

@each
def test_help(name):
    "Catches a parameter that `train_x?` does not show, and a signature of its own."
    _, train, config, _, _ = TRAINERS[name]
    signature = inspect.signature(train).parameters
    assert list(signature)[:4] == ["data", "config", "out_dir", "resume"]
    assert [p.kind for p in signature.values()][-1] == inspect.Parameter.VAR_KEYWORD
    assert all(p.default is not inspect.Parameter.empty for p in list(signature.values())[1:-1])
    assert all(re.search(rf"^    {field} = .*\(.+\)$", train.__doc__, re.M) for field in config.model_fields)

@each_loader
def test_what_was_stored_is_loaded(name, trained):
    "Catches a loader that refuses its own trainer's checkpoint, or gives another configuration than the run's."
    _, folder = trained(name)
    _, stored = load_checkpoint(checkpoints(folder)[-1])
    _, config = TRAINERS[name][3](folder)
    assert type(config) is TRAINERS[name][2] and json.loads(config.model_dump_json(exclude={"epochs"})).items() <= stored.items()

@each_loader
def test_what_has_trained_is_known(name, data, trained):
    "Catches a generator that forgets the groups that trained it, in memory or in its file: it would be judged on them."
    run, folder = trained(name)
    nets, expected = TRAINERS[name][3](folder)[0], group_codes(data(name).groups)
    assert len(expected) > 1
    for net in (*run.modules.values(), *(nets.values() if isinstance(nets, dict) else [nets])): assert np.array_equal(net.seen, expected)

# ---- nonsense

class Reached(Exception):
    "The parameters were taken: the training would begin."

@pytest.fixture
def no_training(monkeypatch):
    "Trainers that end where networks would be drawn, after all checks."
    def stop(*_): raise Reached
    for _, train, *_ in TRAINERS.values(): monkeypatch.setattr(f"{train.__module__}.set_seed", stop)

@each
def test_nonsense(name, data, no_training, tmp_path, monkeypatch):
    "Catches a value from which something is computed before it is checked, and a folder that is left behind."
    monkeypatch.chdir(tmp_path)
    _, train, config, _, _ = TRAINERS[name]
    images = data(name)                                                     # not what is timed
    for field in (*config.model_fields, *LoopConfig.model_fields):
        for value in (0, -1, math.nan, math.inf, 1e12, 2.5, "text", "", [], None, True):
            started = time.process_time()
            try: train(images, **{field: value})
            except Reached: continue
            except ParameterError as error: message = str(error)
            assert re.search(rf"(^|\W){field}[=:]", message) and "must" in message and "\n" not in message, message
            assert time.process_time() - started < 2
    assert not list(tmp_path.iterdir())

@each
def test_thirty_wrong_values(name, data, no_training):
    "Catches a trainer that names its errors one after another."
    _, train, config, _, _ = TRAINERS[name]
    wrong = {field: b"wrong" for field in (*config.model_fields, *LoopConfig.model_fields)}
    wrong |= {f"unknown{i}": 0 for i in range(30 - len(wrong))}
    with pytest.raises(ParameterError) as caught: train(data(name), **wrong)
    assert all(re.search(rf"(^|; ){field}[=:]", str(caught.value)) for field in wrong) and len(wrong) >= 30
    assert "\n" not in str(caught.value)

@each
@pytest.mark.parametrize("given", [dict(learning_rate=1), dict(config={"learning_rate": 1})], ids=["by name", "in a dict"])
def test_unknown_parameter(name, given, data, no_training):
    "Catches a misspelt parameter that is taken in silence."
    with pytest.raises(ParameterError, match="^learning_rate: no such parameter"): TRAINERS[name][1](data(name), **given)

# ---- a stranger's file

def hostile(config):
    "Configurations that nobody would train by, each from a good one."
    deep = []
    for _ in range(200): deep = [deep]
    changes = dict(wide=dict(width=10**8, base=10**8, most=10**8, s_width=10**8), deep=dict(depth=10**8, n_blocks=10**8, n_down=10**8),
                   latent=dict(z_dim=10**12), unknown=dict(layers=3), self_=dict(self=1, cls=2, __init__=3), line_break={"a\nb": 1},
                   long_name={"x"*10**6: 1}, nested=dict(seed=deep), nan=dict(lr=math.nan), infinite=dict(lr=math.inf), text=dict(seed="0"),
                   none=dict(seed=None), boolean=dict(batch_size=True), empty=dict(precision=""), object_=dict(lr={"a": [1]}),
                   many={f"p{i}": i for i in range(20_000)}, long_text=dict(precision="x"*10**6))
    for kind, change in changes.items():
        known = {n: v for n, v in change.items() if n in config} or change
        yield kind, config | known
    yield "missing", {n: v for n, v in config.items() if n != "seed"}
    yield "nothing", {}
    for kind, other in dict(list=[1, 2], text="width", number=3, none=None, pairs=[["width", 8]]).items(): yield f"a {kind}", other

@each_loader
def test_hostile_configuration(name, trained, tmp_path, monkeypatch):
    "Catches a foreign file that asks for a hundred million layers and gets them, or ends in anything but one line that names it."
    _, _, _, load, builder = TRAINERS[name]
    state, stored = load_checkpoint(checkpoints(trained(name)[1])[-1])
    def build(*_): raise AssertionError("networks were built")
    monkeypatch.setattr(builder, build)
    with pytest.raises(AssertionError, match="networks were built"): load(trained(name)[1])      # the trap works
    for kind, config in hostile(stored):
        path = tmp_path/f"{kind}.safetensors"
        save_checkpoint(path, dict(modules=state["modules"]), config)
        started = time.process_time()
        with pytest.raises(CheckpointError) as caught: load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 3000, kind
        assert time.process_time() - started < 2, kind

@each_loader
@pytest.mark.parametrize("state", [{}, dict(modules={}), dict(modules=[1], ema=[1]), dict(modules=dict(G=3), ema=dict(G=3)),
                                   dict(modules=dict(G=dict(w="x")), ema=dict(G=dict(w=1))), dict(modules=dict(G={}), ema=dict(G={}))])
def test_file_without_weights(name, state, trained, tmp_path):
    "Catches a good configuration without the weights that it speaks of, which ends in a KeyError."
    _, stored = load_checkpoint(checkpoints(trained(name)[1])[-1])
    save_checkpoint(tmp_path/"empty.safetensors", state, stored)
    with pytest.raises(CheckpointError) as caught: TRAINERS[name][3](tmp_path/"empty.safetensors")
    assert "\n" not in str(caught.value)
