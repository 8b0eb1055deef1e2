"No group on two sides, no class without an image, whatever the table."

import numpy as np
import pandas as pd
import pytest
from small_sets import edit_metadata, ham

from medgan.data.registry import DataError
from medgan.data.splits import PARTS, split_groups

def random_table(rng):
    "Groups of 1 to 6 images; most have one class, some several; class sizes differ by a factor of 50."
    n_classes, group, label = rng.integers(1, 6), [], []
    for c in range(n_classes):
        for _ in range(int(rng.choice([3, 4, 10, 60, 150]))):
            n = int(rng.choice([1, 1, 1, 2, 6]))
            group += [f"g{len(set(group))}"]*n
            label += [f"c{c}"]*n
    order = rng.permutation(len(group))
    return np.array(group)[order], np.array(label)[order]

@pytest.mark.parametrize("seed", range(25))
def test_split(seed):
    "Catches a group on two sides, a class that a part lacks, and shares that drift: 25 random tables."
    rng = np.random.default_rng(seed)
    groups, labels = random_table(rng)
    part = split_groups(groups, labels, seed=seed)
    table = pd.DataFrame(dict(group=groups, label=labels, part=part))
    assert (table.groupby("group").part.nunique() == 1).all()
    for label, rows in table.groupby("label"):
        assert set(rows.part) == set(PARTS)
        for name, share in PARTS.items():
            assert abs((rows.part == name).sum() - share*len(rows)) <= 12, (label, name, share)   # two groups of six
    assert np.array_equal(part, split_groups(groups, labels, seed=seed))
    assert len(groups) < 40 or not np.array_equal(part, split_groups(groups, labels, seed=seed + 1))

def test_split_is_of_the_groups():
    "Catches a split that changes with the order of the rows, and one that follows the rows instead of the groups."
    groups, labels = random_table(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(groups))
    assert np.array_equal(split_groups(groups[order], labels[order]), split_groups(groups, labels)[order])

def test_split_with_mixed_groups():
    "Catches a patient with a rare and a common class who is dealt twice."
    groups = np.repeat([f"p{i}" for i in range(60)], 3)
    labels = np.where(np.arange(180) % 9 == 0, "rare", "common")
    part = pd.Series(split_groups(groups, labels))
    assert (part.groupby(groups).nunique() == 1).all() and set(part[labels == "rare"]) == set(PARTS)

@pytest.mark.parametrize("parts", [dict(a=.5, b=.4), dict(a=1.2, b=-.2), dict(a=1., b=0.), dict(a=float("nan"), b=.5)])
def test_bad_shares(parts):
    "Catches shares that leave images in no part."
    with pytest.raises(DataError, match="add up to 1"): split_groups(range(20), ["x"]*20, parts)

def test_volumes_split_of_mixed_patients():
    "Catches a split that is refused because only one patient has no healthy slice, and a part without a class."
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(12), 10)
        labels = np.where(rng.random(120) < .4, "healthy", "pathological")
        labels[groups == seed % 12] = "pathological"
        part = split_groups(groups, labels, seed=seed)
        assert pd.Series(part).groupby(groups).nunique().eq(1).all() and (pd.crosstab(part, labels) > 0).all(axis=None)
    groups, labels = np.arange(9), np.array(["a"]*6 + ["b"]*3)
    with pytest.raises(DataError, match=r"class 'b' has 2 group\(s\) \(3 images\)"): split_groups([*groups[:8], 7], labels)

def test_split_part_without_a_class():
    "Catches a part without a class, where the groups that have it count as a rarer one and all went to the others."
    groups, labels = np.repeat([*"abcdef"], [11]*3 + [1]*3), np.array((["rare"] + ["common"]*10)*3 + ["rare"]*3)
    refusals = 0
    for seed in range(20):
        try: assert (pd.crosstab(split_groups(groups, labels, seed=seed), labels) > 0).all(axis=None)
        except DataError as error: refusals += "has no image of class 'common'; take another seed" in str(error)
    assert 0 < refusals < 20

def test_class_with_few_groups(tiny_ham, cache):
    "Catches a class that is absent from the test part."
    edit_metadata(tiny_ham, lambda t: t.assign(lesion_id=t.lesion_id.where(t.dx != "df", "HAM_0000030")))
    assert len(ham(tiny_ham)) == 42                                          # without a split there is nothing wrong
    with pytest.raises(DataError, match=r"class 'df' has 1 group\(s\) \(6 images\); a split into train, val, test needs at least 3"):
        ham(tiny_ham, split="train")
