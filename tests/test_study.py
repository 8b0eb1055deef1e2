"Every description of parameters against every kind of nonsense: refused by name, or sensible; and the notebooks say what it says."
import ast
import importlib
import io
import json
import math
import re
import time
import tokenize
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest

from medgan.core.checks import Config, ParameterError, allowed, check
from medgan.training.parameters import LoopConfig, Study, TrainingConfig, parameters_cell

NBS = Path(__file__).parent.parent/"nbs"
PAPERS = {p.stem.split("_", 1)[1]: p for p in sorted(NBS.glob("[0-9]*.ipynb"))}
for paper in PAPERS: importlib.import_module(f"medgan.{paper}")

def subclasses(model):
    "All classes of the package below a class, whatever a notebook or a test has added to them."
    for sub in model.__subclasses__():
        if sub.__module__.startswith("medgan."): yield sub
        yield from subclasses(sub)

STUDIES = sorted(set(subclasses(Study)), key=lambda m: m.__name__)
CONFIGS = sorted({*subclasses(TrainingConfig), LoopConfig, TrainingConfig, Study} - set(STUDIES), key=lambda m: m.__name__)
each = pytest.mark.parametrize("model", STUDIES + CONFIGS, ids=lambda m: m.__name__)
each_study = pytest.mark.parametrize("model", STUDIES, ids=lambda m: m.__name__)
NONSENSE = [0, -1, math.nan, math.inf, -math.inf, 1e12, 10**400, 2.5, "text", "", [], None, True, {}, b"x", [[]], object()]

def defaults_of(model):
    "What the parameters cell holds."
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}

def bounds_of(field):
    "Lowest and highest of a number."
    of = {name: getattr(m, name) for m in field.metadata for name in ("gt", "ge", "le", "lt") if getattr(m, name, None) is not None}
    return of.get("gt", of.get("ge", -math.inf)), of.get("le", of.get("lt", math.inf))

def kinds_of(field):
    "The types that a field takes, but for None."
    kinds = [field.annotation] if get_origin(field.annotation) is None else get_args(field.annotation)
    return [get_args(k)[0] if get_origin(k) is Annotated else k for k in kinds if k is not type(None)]

def is_number(field): return get_origin(field.annotation) is not Literal and any(k in (int, float) for k in kinds_of(field))

def fits(field, value):
    "Is a value, as it is after the check, of the field's own type and within its bounds?"
    if get_origin(field.annotation) is Literal: return any(type(value) is type(a) and value == a for a in get_args(field.annotation))
    if value is None: return type(None) in get_args(field.annotation)
    if get_origin(field.annotation) is tuple: return type(value) is tuple and all(type(v) is str for v in value)
    low, high = bounds_of(field) if is_number(field) else (None, None)
    return type(value) in kinds_of(field) and (low is None or low <= value <= high)

def refusal(make, name):
    "The message with which a value is refused; '' where it is taken. It names the parameter, in one line, and what is allowed."
    started = time.process_time()
    try: made = make()
    except ParameterError as error: made, message = None, str(error)
    else: message = ""
    assert time.process_time() - started < 2
    if message:
        assert re.search(rf"(^|\W){name}[=:]", message) and "\n" not in message and len(message) < 700, message
        assert re.search(r"must|needs|known are|nothing to go on from", message), message
    return message, made

@pytest.fixture
def empty(tmp_path, monkeypatch):
    "An empty folder to work in, which is empty afterwards."
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())

# ---- nonsense

@each
def test_nonsense(model, empty):
    "Catches a value that slips through and fails hours later, one that ends in a TypeError, and one that is converted in silence."
    defaults = defaults_of(model)
    for name, field in model.model_fields.items():
        for value in NONSENSE:
            given = defaults | {name: value}
            for make in (lambda: model(**given), lambda: check(model, given)):
                message, made = refusal(make, name)
                assert message or fits(field, getattr(made, name)), f"{name}={value!r} is taken as {getattr(made, name)!r}"

@each
def test_values_just_outside(model, empty):
    "Catches a bound that is stated and not kept."
    defaults = defaults_of(model)
    for name, field in model.model_fields.items():
        if not is_number(field): continue
        low, high = bounds_of(field)
        step = 1 if int in kinds_of(field) else 1e-6*max(1, high)
        for value in (low - step, high + step): assert refusal(lambda: model(**defaults | {name: value}), name)[0]

@each_study
def test_thirty_wrong_values(model):
    "Catches a first error that hides the others: a run would be refused thirty times."
    fields = list(model.model_fields)
    wrong = {name: b"wrong" for name in fields[:30]} | {f"unknown{i}": 1 for i in range(30 - len(fields))}
    assert len(wrong) == 30
    with pytest.raises(ParameterError) as caught: model(**wrong)
    assert [m[2] for m in re.finditer(r"(^|; )(\w+)[=:]", str(caught.value))] == list(wrong) and "\n" not in str(caught.value)

@each
def test_unknown_parameter(model):
    "Catches a misspelt parameter that is taken in silence: the run would be another than the one that was meant."
    with pytest.raises(ParameterError, match="learning_rate: no such parameter"): model(learning_rate=1)
    name = list(model.model_fields)[-1]
    with pytest.raises(ParameterError, match=f"{name}x: no such parameter; do you mean {name}"): model(**{f"{name}x": 1})

@each_study
def test_missing_parameter(model):
    "Catches a parameters cell from which a line was lost: the default would be taken without a word."
    for name in model.model_fields:
        given = defaults_of(model)
        del given[name]
        with pytest.raises(ParameterError, match=f"^{name}: is missing; must be "): check(model, given)

# ---- what a description holds

@each
def test_defaults_are_allowed(model):
    "Catches a default outside of its own bounds (a class does not look at them)."
    made = model(**defaults_of(model))
    assert all(fits(field, getattr(made, name)) for name, field in model.model_fields.items())

@each
def test_every_number_is_bounded(model):
    "Catches a size that asks for more than any machine has, and a number without a limit on one side."
    for name, field in model.model_fields.items():
        if is_number(field): assert all(map(math.isfinite, bounds_of(field))), f"{model.__name__}.{name} has no bound on one side"

@each
def test_every_field_is_described(model):
    "Catches a parameter that the help names and does not explain, a line break in a comment, and a '#' that would end it."
    for name, field in model.model_fields.items():
        assert field.description and "\n" not in field.description and "#" not in field.description and allowed(field), name
        assert f"\n    {name} = " in "\n" + model.explain()

@each_study
def test_study_agrees_with_its_training(model):
    "Catches a notebook whose default or bounds of a parameter differ from those of its trainer: the same name would mean two things."
    for config in set(model.__mro__) & set(CONFIGS) - {Study, TrainingConfig}:
        for name in config.model_fields.keys() - {"classes"}:
            ours, theirs = ((f.default, f.annotation, bounds_of(f)) for f in (model.model_fields[name], config.model_fields[name]))
            assert ours == theirs, name

# ---- the notebooks

def comments_of(source):
    "Comment of each line that has one, by its number."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.removeprefix("#").strip() for token in tokens if token.type == tokenize.COMMENT}

def read_cell(source):
    "(name, type, default, comment) of each line of a parameters cell."
    comments = comments_of(source)
    lines = ast.parse(source).body
    return [(line.target.id, ast.unparse(line.annotation), ast.literal_eval(line.value), comments[line.end_lineno]) for line in lines]

@each_study
def test_parameters_cell(model):
    "Catches a cell that says another default, type or meaning than the description by which it is checked."
    notebook = json.loads(PAPERS[model.__module__.removeprefix("medgan.")].read_text(encoding="utf-8"))
    cell, = (c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    assert read_cell("".join(cell["source"])) == read_cell(parameters_cell(model))

def test_there_are_studies():
    "Catches a paper without a description, and tests above that pass on none."
    assert STUDIES and all(issubclass(m, Config) for m in STUDIES + CONFIGS)
    described = {m.__module__.removeprefix("medgan.") for m in STUDIES}
    assert described == set(PAPERS), f"no description of the parameters of {', '.join(set(PAPERS) - described)}"
