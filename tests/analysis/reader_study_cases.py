"What the tests of the reader study share: sets of images, answers as a reader would save them, a score looked up."
import json

import numpy as np
import pandas as pd

from medgan.analysis.reader_study import ANSWER_COLUMNS, EVERY
from medgan.data.images import as_image_data

CLASSES = ("bkl", "mel", "nv")

def image_set(name, n=12, size=16, channels=3, classes=CLASSES, seed=0):
    "n coloured images of each class; a class has its own hue, so that screenshots tell them apart."
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (n*len(classes), size, size, channels), dtype=np.uint8)
    labels = np.repeat(classes, n)
    for i, c in enumerate(classes if channels > 1 else ()): coarse[labels == c, :, :, i % channels] = 230
    return as_image_data(coarse, name=name, labels=labels)

def items_of(key): return pd.DataFrame(json.loads(key.read_text(encoding="utf-8"))["items"]).T.rename_axis("item")

def truth_of(key):
    "item -> the right answer."
    items = items_of(key)
    right = items.kind == "real" if (items.asked == "").all() else items.asked == items.condition
    return {item: "yes" if r else "no" for item, r in right.items()}

def write_answers(key, reader, answer_of=None):
    "The CSV that the page saves; by default all answers right."
    truth, study = truth_of(key), json.loads(key.read_text(encoding="utf-8"))["study"]
    rows = [(study, reader, item, answer_of(item, t) if answer_of else t, 700) for item, t in truth.items()]
    path = key.parent/f"{reader}.csv"
    pd.DataFrame(rows, columns=ANSWER_COLUMNS).to_csv(path, index=False)
    return path

def value(scores, measure, reader, condition=EVERY["condition"]):
    "The one row of a table of scores."
    row = scores[(scores.measure == measure) & (scores.reader == reader) & (scores.condition == condition)]
    assert len(row) == 1
    return row.iloc[0]
