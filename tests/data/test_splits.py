"No group on two sides, whatever is chosen of a set: its side follows from its name and the seed."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import edit_metadata, ham

from medgan.data.images import as_image_data, load_data
from medgan.data.registry import DataError
from medgan.data.splits import PARTS, group_sides, one_name, split_groups

NAMES = [f"ham10000/HAM_{i:07d}" for i in range(40)]

@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=40, unique=True), st.permutations(NAMES), st.integers(0, 3))
def test_side_is_of_the_name(some, order, seed):
    "Catches a side that depends on which other groups there are, or on their order."
    side = dict(zip(order, group_sides(order, seed=seed)))
    assert list(group_sides(some, seed=seed)) == [side[name] for name in some]

@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.integers(0, 3))
def test_side_of_joined_groups(names, seed):
    "Catches groups that are one in one set and two in another, and stand on two sides then."
    sides = set(group_sides(names, seed=seed))
    assert group_sides([one_name(names)], seed=seed)[0] == (sides.pop() if len(sides) == 1 else "")

CLASSES = ("a", "b", "c", "d")

@st.composite
def sets(draw):
    "Images of 400 groups with one class or several, some of the classes and rows of it, in any order."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = rng.integers(0, 400, draw(st.integers(500, 900)))
    labels = np.where(rng.random(len(groups)) < .2, rng.integers(0, 4, len(groups)), groups % 4)
    classes = draw(st.lists(st.sampled_from(range(4)), min_size=1, max_size=4, unique=True))
    rows = rng.permutation(np.flatnonzero(np.isin(labels, classes)))[:draw(st.integers(300, 900))]
    return groups[rows], labels[rows]

@settings(max_examples=40, deadline=None)
@given(sets(), sets(), st.integers(0, 5))
def test_two_calls_never_disagree(one, other, seed):
    "Catches a network that has seen another call's test groups: any classes, limits, sizes and orders of one set."
    sides = []
    for size, (groups, labels) in zip((8, 16), (one, other)):
        images = np.zeros((len(groups), size, size), np.uint8)
        data = as_image_data(images, groups=[f"set/{g}" for g in groups], labels=[CLASSES[i] for i in labels])
        try: parts = data.split(seed=seed)
        except DataError: return                                     # a part without a class is refused: nothing can leak
        assert sum(map(len, parts.values())) == len(data)
        sides.append({group: name for name, part in parts.items() for group in part.table.group})
    assert all(sides[0][group] == sides[1][group] for group in sides[0].keys() & sides[1].keys())

def test_choice_of_classes(cache):
    "Catches a split that is dealt after the choice of classes, as it was: half of the test lesions had been trained on."
    some = {name: load_data("phantom", size=16, n=900, classes=["nv", "mel"], split=name) for name in PARTS}
    whole = load_data("phantom", size=32, n=2000).split()
    for name, part in some.items():
        for other in PARTS:
            if other != name: assert not set(part.table.group) & set(whole[other].table.group)

def test_shares():
    "Catches shares that drift, parts that come out alike for all seeds, and a second split that repeats the first."
    names = [f"g{i}" for i in range(4000)]
    side = group_sides(names)
    for name, share in PARTS.items(): assert abs((side == name).mean() - share) < .025
    assert .5 < (side == group_sides(names, seed=1)).mean() < .6                # .7**2 + 2*.15**2 = .535
    halves = group_sides(names, dict(one=.5, two=.5))
    assert abs((halves[side == "train"] == "one").mean() - .5) < .03

@pytest.mark.parametrize("parts", [dict(train=.8, test=.2), dict(train=.6, reserve=.15, val=.1, test=.15), dict(test=.15, train=.85)])
def test_splits_of_other_shares(parts):
    "Catches a test part that another notebook, with other shares, has trained on."
    names = [f"g{i}" for i in range(2000)]
    one, other = group_sides(names), group_sides(names, parts)
    assert not ((one == "test") & (other == "train")).any() and not ((other == "test") & (one == "train")).any()

def test_in_no_part():
    "Catches images whose group has names on two sides, put on either of them or dropped without a word."
    names = np.array([f"set/{i}" for i in range(60)])
    side = group_sides(names)
    both = one_name([names[side == "train"][0], names[side == "test"][0]])
    data = as_image_data(np.zeros((61, 8, 8), np.uint8), groups=[*names, both])
    with pytest.warns(UserWarning, match="images: 1 images are in no part") as caught: parts = data.split()
    assert sum(map(len, parts.values())) == 60 and not any(both in set(part.table.group) for part in parts.values())
    assert caught[0].filename == __file__

@pytest.mark.parametrize("parts", [dict(a=.5, b=.4), dict(a=1.2, b=-.2), dict(a=1., b=0.), dict(a=float("nan"), b=.5)])
def test_bad_shares(parts):
    "Catches shares that leave images in no part."
    with pytest.raises(DataError, match="add up to 1"): split_groups(range(20), ["x"]*20, parts)

@pytest.mark.parametrize("seed", [None, 1.5, "0", True])
def test_bad_seed(seed):
    "Catches seed=None, which dealt anew at each call."
    with pytest.raises(DataError, match="a split needs a whole number"): split_groups(range(20), ["x"]*20, seed=seed)

@pytest.mark.parametrize("empty", [None, float("nan")])
def test_no_group(empty):
    "Catches images without a group, which were in no part."
    with pytest.raises(DataError, match="1 of 21 images have no group"): split_groups([*range(20), empty], ["x"]*21)

def test_part_without_a_class():
    "Catches a part without a class, and advice that does not help."
    groups, labels = [f"p{i}" for i in range(40)], ["rare"]*5 + ["common"]*35
    refused = 0
    for seed in range(10):
        try: part = split_groups(groups, labels, seed=seed)
        except DataError as error:
            refused += 1
            better = int(str(error).rpartition("seed=")[2].split()[0])
            part = split_groups(groups, labels, seed=better)
        assert (pd.crosstab(part, labels) > 0).all(axis=None)
    assert 0 < refused < 10
    with pytest.raises(DataError, match=r"class 'rare' has 2 group\(s\) \(5 images\); a split into train, val, test needs at least 3"):
        split_groups([*"aaabb", *groups], ["rare"]*5 + ["common"]*40)
    with pytest.raises(DataError, match="no seed below 1,000 does better"):
        split_groups([f"p{i}" for i in range(64)], [f"c{i % 16}" for i in range(64)])

def test_class_with_few_groups(tiny_ham, cache):
    "Catches a class that is absent from the test part."
    edit_metadata(tiny_ham, lambda t: t.assign(lesion_id=t.lesion_id.where(t.dx != "df", "HAM_0000030")))
    assert len(ham(tiny_ham)) == 42                                          # without a split there is nothing wrong
    with pytest.raises(DataError, match=r"class 'df' has 1 group\(s\) \(6 images\); a split into train, val, test needs at least 3"):
        ham(tiny_ham, split="train")
