"The real skin sets, where $MEDGAN_DATA names them: whole, unchanged, fast."
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_sets import frozen_key

from medgan.data import prepare
from medgan.data.images import load_data
from medgan.data.prepare import fingerprint_of
from medgan.data.splits import PARTS

ROOT = Path(__file__).parent.parent.parent
TABLE_II = dict(nv=6705, bcc=514, mel=1113, bkl=1099, akiec=327, vasc=142, df=115)      # Bingol et al.

def opened_in(real_data):
    "Seconds of this process, all its threads, to open HAM10000: others may use the machine."
    started = time.process_time()
    load_data("ham10000", str(real_data), size=64)
    return time.process_time() - started

def test_real_ham10000(real_data, cache):
    """Catches lost or doubled images, labels that are not the paper's, a leak of lesions, duplicates that are missed or invented, and a
    reader that is too slow to train with."""
    first = opened_in(real_data)
    second = min(opened_in(real_data) for _ in range(3))
    data = load_data("ham10000", str(real_data), size=64)
    assert len(data) == 10015 and data.table.group.nunique() == 7470 and data.table.dx.value_counts().to_dict() == TABLE_II
    assert data.table.id[data.table.looks_like != ""].tolist() == ["ISIC_0025226", "ISIC_0030074"]     # one photograph, two lesions
    parts = data.split()
    groups = {name: set(part.table.group) for name, part in parts.items()}
    assert sum(map(len, groups.values())) == 7470 and sum(map(len, parts.values())) == 10015
    assert all(not groups[a] & groups[b] for a, b in (("train", "val"), ("train", "test"), ("val", "test")))
    for name, share in PARTS.items(): assert abs(len(parts[name])/10015 - share) < .01 and set(parts[name].table.dx) == set(TABLE_II)
    rows, seconds = np.random.default_rng(0).permutation(10015)[:4096].reshape(-1, 64), []
    for _ in range(5):
        started = time.process_time()
        for batch in rows: data.read(batch)
        seconds.append(time.process_time() - started)
    rate = rows.size/min(seconds)
    print(f"prepared in {first:.1f} s, opened in {second:.2f} s, {rate:,.0f} images/s")
    assert first < 60 and rate > 10_000
    assert second < max(1, first/25), "a machine that is busy is slower at preparing too"

def test_real_ham10000_stays(real_data, cache):
    "Catches that the bytes of the set that published results stand on have changed, and masks of lesions that fall to pieces."
    data = load_data("ham10000", str(real_data), size=64)
    before = data.table.assign(group=data.table.group.str.removeprefix("ham10000/"))     # when these ran, a group had no set in front
    fingerprint = fingerprint_of(data.images, data.masks, before)
    for name in ("cdcgan/ham10000_7_classes_64px", "metrics/ham10000_64px"):
        assert json.loads((ROOT/"data"/"results"/name/"metrics.json").read_text())["data"]["fingerprint"] == fingerprint
    assert 1 <= min(map(len, data.roi_boxes())) and np.mean([len(b) == 1 for b in data.roi_boxes()]) > .99

def test_real_isic(real_data, cache):
    "Catches a reader that fails on the sets of other years."
    for name, n in (("isic2018_task3_test", 1512), ("isic_uda1", 557)):
        folder = next(iter(real_data.glob(f"**/{name}")), None)
        if folder is None: pytest.skip(f"{name} is not in MEDGAN_DATA")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)                     # they name no lesions
            assert len(load_data("isic", str(folder), size=32)) == n

def test_real_skin_caches_stay(real_data, cache, monkeypatch):
    "Catches that the real sets, prepared by an earlier medgan, are prepared again."
    class Prepared(Exception): "Carries what would be prepared."
    def stop(*args): raise Prepared(*args)
    monkeypatch.setattr(prepare, "_prepare", stop)
    for name, place in (("ham10000", "ham10000"), ("isic", "isic2018_task3_test")):
        if (folder := next(iter(real_data.glob(f"**/{place}")), None)) is None: pytest.skip(f"{place} is not in MEDGAN_DATA")
        with warnings.catch_warnings(), pytest.raises(Prepared) as caught:
            warnings.simplefilter("ignore", UserWarning)                     # isic names no lesions
            load_data(name, str(folder), size=64)
        _, table, _, size, folder = caught.value.args
        assert folder.name == f"{name}-64-{frozen_key(table, size)}"
