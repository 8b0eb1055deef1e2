"Parameters: one description of each, all that is wrong in one message, nothing converted that is not used."
import inspect
from threading import Thread
from time import monotonic
from typing import Literal

import numpy as np
import pytest
import torch
from filelock import Timeout
from pydantic import Field, ValidationError, model_validator

from medgan.core.checks import (
    Config,
    Names,
    Number,
    ParameterError,
    Whole,
    allowed,
    alone,
    check,
    check_choice,
    check_number,
    check_out_dir,
    injected_names,
    shown,
    takes,
)

NAN, INF = float("nan"), float("inf")

class Toy(Config):
    "A toy."
    size: Literal[32, 64] = Field(32, description="px")
    width: Whole = Field(16, ge=1, le=512, description="channels")
    lr: Number = Field(.1, gt=0, le=1, description="rate")
    share: Number = Field(.5, ge=0, le=1, description="share")
    p: Number | None = Field(None, ge=0, le=1, description="probability; None = adaptive")
    classes: Names = Field((), description="in label order")
    mirror: bool = Field(True, description="also as mirror images")
    kind: Literal["a", "b"] = Field("a", description="kind")
    note: str = Field("", description="a note")

# ---- one value

@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, INF, -INF, "3", True, None, [1], 10**400], ids=lambda v: str(v)[:8])
def test_number_refused(value):
    "Catches a value that slips through, and a TypeError or OverflowError in place of the parameter's name."
    with pytest.raises(ParameterError) as caught: check_number("n", value, 1, 100, whole=True)
    assert str(caught.value) == f"n={value!r}: must be a whole number from 1 to 100"

@pytest.mark.parametrize("value", [1, 100, 3.0, np.float64(8.)])
def test_number_accepted(value):
    "Catches a bound that is left out, and a whole float that stays one."
    made = check_number("n", value, 1, 100, whole=True)
    assert made == value and type(made) is int

@pytest.mark.parametrize("given, said", [((-INF, INF, False), ""), ((0, INF, False), " from 0"), ((-INF, 3, False), " to 3"),
                                         ((0, 1, True), " above 0 and up to 1"), ((0, INF, True), " above 0"),
                                         ((.5, 1e6, False), " from 0.5 to 1e+06")])
def test_bounds_in_words(given, said):
    "Catches a sentence that names an infinity, or a bound as allowed that is not."
    low, high, above = given
    with pytest.raises(ParameterError) as caught: check_number("x", "bad", low, high, above=above)
    assert str(caught.value) == f"x='bad': must be a number{said}"

def test_choice_knows_types():
    "Catches True taken for 1, 1.0 for 1, and a value that cannot be compared."
    assert check_choice("n", 1, (1, 2)) == 1
    for value in (True, 1.0, "1", None, [1], np.zeros(2)):
        with pytest.raises(ParameterError, match="must be one of 1, 2"): check_choice("n", value, (1, 2))

def test_checks_create_nothing(tmp_path):
    "Catches a check that leaves an empty folder."
    check_out_dir(str(tmp_path/"a"/"b"))
    assert not list(tmp_path.iterdir())

def test_shown():
    "Catches a default that cannot be typed as it stands in a parameters cell."
    typed = {2.: "2", 2.5: "2.5", 1e-4: "0.0001", 3: "3", None: "None", "a\"b": '"a\\"b"', "é": '"é"', (): "()"}
    assert {value: shown(value) for value in typed} == typed and shown(True) == "True"

# ---- a description

def test_converted_value_is_used():
    "Catches a value that is checked in one type and used in another."
    toy = Toy(width=8., lr=1, share=np.float32(.5), p=np.int64(1), classes=["nv", "mel"])
    assert [(v, type(v)) for v in (toy.width, toy.lr, toy.share, toy.p, toy.classes)] == [
        (8, int), (1., float), (.5, float), (1., float), (("nv", "mel"), tuple)]
    assert Toy(width=torch.tensor(3)).width == 3

BAD = dict(size=(0, 48, "32", True, None, [32], NAN), width=(0, 513, 2.5, NAN, INF, "8", True, None, [8], 10**400),
           lr=(0, -1, 1.1, NAN, "1", True, None), share=(-.1, 1.1, INF, "", False), p=(-.1, 2, NAN, "None", True, []),
           classes=("nv", 3, None, [1], {"a": 1}, ["a", None], ["a", "b", "a"], [str(i) for i in range(1001)]),
           mirror=(1, 0, "True", None), kind=("c", "A", 1, None, ["a"]), note=(1, None, b"x", ["x"]))

@pytest.mark.parametrize("name, value", [(n, v) for n, values in BAD.items() for v in values], ids=lambda v: str(v)[:12])
def test_each_is_refused_by_name(name, value):
    "Catches a value of another type, or out of bounds, that is taken or converted in silence."
    with pytest.raises(ParameterError) as caught: Toy(**{name: value})
    said = str(caught.value)
    assert said.startswith(f"{name}=") and said.endswith(f": must be {allowed(Toy.model_fields[name])}")
    assert "\n" not in said and len(said) < 160

def test_all_at_once():
    "Catches a first error that hides the others: each parameter once, in their order."
    with pytest.raises(ParameterError) as caught: Toy(**{name: values[0] for name, values in BAD.items()}, epocs=3)
    parts = str(caught.value).split("; ")
    assert [part.split("=")[0] for part in parts[:len(BAD)]] == list(BAD) and parts[len(BAD)].startswith("epocs: no such parameter")

@pytest.mark.parametrize("name, hint", [("widht", "do you mean width?"), ("learning_rate", "there are size, width, lr"),
                                        *((name, "there are") for name in ("self", "__init__", "model_config", "values"))])
def test_unknown_names(name, hint):
    "Catches a misspelt parameter that is taken, and one whose name collides with what a class has."
    with pytest.raises(ParameterError) as caught: Toy(**{name: 1})
    assert str(caught.value).startswith(f"{name}: no such parameter; {hint}")

def test_unknown_names_together():
    "Catches the list of all parameters behind each of many unknown names, which hides them."
    with pytest.raises(ParameterError) as caught: Toy(foo=1, widht=1, bar=1)
    told = "foo: no such parameter; widht: no such parameter; do you mean width?; bar: no such parameter; there are size, width, lr"
    assert str(caught.value).startswith(told) and str(caught.value).count("there are") == 1

def test_missing():
    "Catches a parameter without a default that is left open."
    class Needed(Config):
        width: Whole = Field(ge=1, le=8, description="channels")
        depth: Whole = Field(ge=1, le=8, description="layers")
    with pytest.raises(ParameterError) as caught: Needed()
    assert str(caught.value) == "; ".join(f"{name}: is missing; must be a whole number from 1 to 8" for name in ("width", "depth"))

def test_frozen_and_changed():
    "Catches a configuration that somebody changes behind a run's back, and a change that is not checked."
    toy = Toy(width=8)
    with pytest.raises(ValidationError): toy.width = 9
    assert (toy.changed(width=9.).width, toy.width) == (9, 8) and toy.changed().width == 8
    with pytest.raises(ParameterError, match="width=0"): toy.changed(width=0)
    with pytest.raises(ParameterError, match="widht: no such parameter"): toy.changed(widht=1)

def test_part():
    "Catches a part that takes what the other class does not know, loses what is set, or is not checked."
    class Part(Config):
        width: Whole = Field(4, ge=1, le=32, description="channels")
        depth: Whole = Field(2, ge=1, le=8, description="layers")
    assert dict(Toy(width=8).part(Part)) == dict(width=8, depth=2)
    assert dict(Toy(width=8).part(Part, width=3, depth=5)) == dict(width=3, depth=5)
    with pytest.raises(ParameterError, match="width=64: must be a whole number from 1 to 32"): Toy(width=64).part(Part)

def test_rules_between_parameters():
    "Catches a rule over several parameters whose message loses its form."
    class Ruled(Config):
        a: Whole = Field(1, ge=0, le=9, description="a")
        b: Whole = Field(2, ge=0, le=9, description="b")
        @model_validator(mode="after")
        def _ordered(self):
            if self.a > self.b: raise ValueError(f"a={self.a}: must be at most b={self.b}")
            return self
    with pytest.raises(ParameterError) as caught: Ruled(a=5)
    assert str(caught.value) == "a=5: must be at most b=2"

def test_long_values_are_cut():
    "Catches a page of somebody's list in the middle of a message."
    with pytest.raises(ParameterError) as caught: Toy(width=list(range(10_000)))
    assert str(caught.value).startswith("width=[0, 1, 2, ") and len(str(caught.value)) < 160

def test_foreign_names_are_cut():
    "Catches a name out of somebody's file that fills the screen or breaks the line, and a file with more names than anyone reads."
    for name in ("x"*10**6, "a\nb", "", "a b"):
        with pytest.raises(ParameterError) as caught: Toy(**{name: 1})
        assert "no such parameter" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300
    with pytest.raises(ParameterError) as caught: Toy(**{f"p{i}": 0 for i in range(10**5)}, width=0)
    assert "99901 more" in str(caught.value) and len(str(caught.value)) < 10_000

def test_help():
    "Catches a parameter that the help does not name, or names without default, bounds or meaning."
    lines = Toy.explain().splitlines()
    assert [line.split(" = ")[0].strip() for line in lines] == list(Toy.model_fields)
    assert lines[1].strip() == "width = 16: channels (a whole number from 1 to 512)"
    assert lines[4].strip().startswith("p = None: probability; None = adaptive (None or a number")
    @takes(Toy)
    def train_toy(data, **parameters):
        "Train a toy."
    assert inspect.getdoc(train_toy).startswith("Train a toy.\n\nToy:")
    assert all(f"\n    {name} = " in train_toy.__doc__ for name in Toy.model_fields)

# ---- a notebook's cell

def cell(**changes): return dict(Toy()) | dict(other=1) | changes

def test_cell():
    "Catches a name of the notebook that is taken for a parameter, and a parameter that the cell lacks."
    assert check(Toy, cell(width=7.)) == Toy(width=7)
    given = cell()
    del given["width"], given["note"]
    with pytest.raises(ParameterError) as caught: check(Toy, given | dict(lr=0))
    named = [part.split(":")[0] for part in str(caught.value).split("; ") if "missing" in part or "=" in part]
    assert named == ["width", "note", "lr=0"]

@pytest.mark.parametrize("cells, names", [(["import os", "x = 1"], []), (["# Parameters\nepochs = 1\nlr = .1\n"], ["epochs", "lr"]),
                                          (["# Parameters of mine\nepochs = 1"], []), (["x = 1\n# Parameters\ny = 2\n"], []),
                                          (["# Parameters\nclasses = [\"a = 1\"]\n"], ["classes"])])
def test_injected_names(cells, names):
    "Catches a cell of the notebook that is taken for papermill's, and a value that is taken for a name."
    assert injected_names(cells) == names

def test_injected_unknown():
    "Catches `-p epocs 7`, of which papermill only warns."
    with pytest.raises(ParameterError) as caught: check(Toy, cell(In=["", "# Parameters\nwidth = 3\nwidht = 4\n"], width=3))
    assert str(caught.value) == "widht: no such parameter; do you mean width?"

# ---- one at a time

def test_waits_for_a_lock(tmp_path, capsys):
    "Catches a process that waits without a word, that goes on before the other is done, and a lock that stays."
    lock, order = tmp_path/".lock", []
    def second():
        with alone(lock, "waiting"): order.append("second")
    with alone(lock):
        (thread := Thread(target=second)).start()
        said, until = "", monotonic() + 10
        while not said and monotonic() < until: said = capsys.readouterr().out
        with pytest.raises(Timeout), alone(lock): pass
        order.append("first")
    thread.join(10)
    assert (said, order, list(tmp_path.iterdir())) == ("waiting\n", ["first", "second"], [])
