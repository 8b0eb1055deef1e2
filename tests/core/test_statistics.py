"Edge cases and bad input of medgan.core.statistics; what the functions promise is proved in the notebook."
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medgan.core.statistics import (
    adjust_p,
    auc_interval,
    bootstrap_interval,
    delong_test,
    effect_size,
    equivalence_test,
    mcnemar_test,
    paired_test,
    sample_size,
)

Y, SCORE = [0, 0, 1, 1], [.1, .4, .3, .9]

@pytest.mark.parametrize("call, message", [
    (lambda: bootstrap_interval([1.]), "values has 1 rows"),
    (lambda: bootstrap_interval(5.), "must be one column"),
    (lambda: bootstrap_interval([1., np.nan, 2.]), "1 missing values"),
    (lambda: bootstrap_interval(([1, 2], [1, 2, 3]), np.mean), "lengths {'column 0': 2, 'column 1': 3}"),
    (lambda: bootstrap_interval([1, 2, 3], level=95), "level=95"),
    (lambda: bootstrap_interval([1, 2, 3], groups=[1, 2]), "must be (3,)"),
    (lambda: bootstrap_interval([1, 2, 3], groups=["a", "a", "a"]), "at least two groups"),
    (lambda: bootstrap_interval([1, 2, 3], groups=["a", None, "b"]), "groups has 1 missing values"),
    (lambda: bootstrap_interval([1, 2, 3], statistic=np.sort), "must be one finite number"),
    (lambda: paired_test([1, 2], [1, 2, 3]), "lengths {'a': 2, 'b': 3}"),
    (lambda: paired_test([1], [2]), "a has shape (1,): must be 2 or more"),
    (lambda: paired_test([[1, 2], [3, 4]], [1, 2]), "a has shape (2, 2)"),
    (lambda: paired_test([1, 2], [1, np.inf]), "b[1] is inf"),
    (lambda: paired_test([1, 2], [1, 3], method="wilcoxon"), "method='wilcoxon': must be 't' or 'permutation'"),
    (lambda: paired_test([1, 2], [1, 3], level=1), "level=1"),
    (lambda: paired_test([.1, .7, .9], [.2, .8, 1.]), "all equal"),                  # equal but for rounding
    (lambda: mcnemar_test([0, 1], [0, 1, 1]), "lengths {'right_a': 2, 'right_b': 3}"),
    (lambda: mcnemar_test([0, 2], [0, 1]), "right_a holds np.int64(2)"),
    (lambda: mcnemar_test([0, 1], ["0", "1"]), "right_b holds"),
    (lambda: mcnemar_test([], []), "right_a has shape (0,)"),
    (lambda: delong_test(Y, SCORE, SCORE[:3]), "'score_b': 3"),
    (lambda: delong_test([0, 0, 0, 1], SCORE, SCORE), "1 positives and 3 negatives"),
    (lambda: delong_test([0, 1, 2, 1], SCORE, SCORE), "y holds"),
    (lambda: auc_interval(Y, [0, 1, np.nan, 2]), "score[2] is nan"),
    (lambda: auc_interval(Y, np.ones((4, 2))), "score has shape (4, 2)"),
    (lambda: adjust_p([]), "p_values has shape (0,)"),
    (lambda: adjust_p([.1, np.nan]), "p_values[1] is nan"),
    (lambda: adjust_p([.1, 1.2]), "p_values hold 1.2"),
    (lambda: adjust_p([.1], "sidak"), "method='sidak'"),
    (lambda: effect_size([1, 2], [1, 3], paired=True), "3 or more"),                  # J would be 0
    (lambda: effect_size([1, 1], [2, 2]), "all equal"),
    (lambda: effect_size([1, 2, 3], [2, 3, 4], paired=True), "all equal"),
    (lambda: equivalence_test([1, 2], [2, 1], -.1), "margin=-0.1"),
    (lambda: equivalence_test([1, 2], [2, 1], np.nan), "margin=nan"),
    (lambda: sample_size(.1, share=.5, sd=1), "give exactly one"),
    (lambda: sample_size(10, share=.5), "ten points are .1"),
    (lambda: sample_size(0, sd=1), "half_width=0: must be above 0"),
    (lambda: sample_size(.1, share=50), "share=50"),
    (lambda: sample_size(.1, sd=0), "sd=0"),
    (lambda: sample_size(.1, sd=1, level=0), "level=0"),
    (lambda: sample_size(1e-9, share=.5), "more than"),
])
def test_bad_input(call, message):
    "Catches a mistake that would come out as a number, a NaN or another library's error."
    with pytest.raises(ValueError) as error: call()
    assert message in str(error.value)

def test_bootstrap_is_the_same_again():
    "Catches a draw that does not come from `seed`."
    x = np.random.default_rng(0).normal(size=20)
    assert bootstrap_interval(x, seed=1) == bootstrap_interval(x, seed=1) != bootstrap_interval(x, seed=2)

@pytest.mark.parametrize("label", [str, int, float, lambda g: pd.Timestamp(2020, 1, 1 + g)])
def test_bootstrap_groups_of_any_kind(label):
    "Catches groups that must be sorted, or must be numbers from 0."
    x, groups = np.random.default_rng(0).normal(size=24), np.random.default_rng(1).permutation(np.repeat(np.arange(8), 3))
    expected = bootstrap_interval(x, groups=groups, n_resamples=200)
    values, named = pd.Series(x, index=range(24, 0, -1)), pd.Series([label(g + 3) for g in groups])
    assert bootstrap_interval(values, groups=named, n_resamples=200) == expected

def test_bootstrap_is_scipys():
    "Catches a distribution that is drawn twice, or an interval that is not BCa."
    x = np.random.default_rng(0).exponential(size=25)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_interval(x)[1:] == pytest.approx(tuple(theirs), rel=1e-9)

@pytest.mark.parametrize("value", [1., .1, 0.])
def test_bootstrap_of_equal_values_has_no_interval(value):
    "Catches an interval of width 0, and a warning instead of a NaN."
    groups = np.repeat(np.arange(6), (1, 2, 3, 4, 5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap_interval(np.full(21, value), groups=groups) == pytest.approx((value, np.nan, np.nan), nan_ok=True)

def test_bootstrap_takes_whole_rows():
    "Catches a column of probabilities (N,K) that is drawn by class or flattened."
    p, y = np.random.default_rng(0).dirichlet((1, 1, 1), 40), np.arange(40) % 3
    value, low, high = bootstrap_interval((p, y), lambda p, y: p[np.arange(len(y)), y].mean(), n_resamples=300)
    expected = bootstrap_interval(p[np.arange(40), y], n_resamples=300)
    assert np.allclose((value, low, high), expected)

@pytest.mark.parametrize("method", ["t", "permutation"])
@pytest.mark.parametrize("n", [2, 6, 13, 14, 40])
def test_paired_test_turns_with_its_arguments(method, n):
    "Catches a sign or an end exchanged, in the listed patterns (to 13 pairs) and in the drawn ones."
    a, b = np.random.default_rng(n).normal(.5, 1, n), np.zeros(n)
    one, other = paired_test(a, b, method), paired_test(b, a, method)
    assert one["low"] <= one["difference"] <= one["high"] and one["difference"] == -other["difference"]
    near = dict(abs=.08, rel=1e-9) if n > 13 and method == "permutation" else dict(rel=1e-9)
    assert (one["low"], one["high"], one["p"]) == pytest.approx((-other["high"], -other["low"], other["p"]), **near)

@pytest.mark.parametrize("n", [12, 30])
def test_permutation_interval_is_near_the_t_interval(n):
    "Catches an interval of the wrong level, or a list of sign patterns with gaps."
    d = np.random.default_rng(0).normal(1, 1, n)
    t, permutation = (paired_test(d, 0*d, method, level=.9) for method in ("t", "permutation"))
    assert (permutation["low"], permutation["high"]) == pytest.approx((t["low"], t["high"]), abs=.08)

def test_permutation_needs_no_spread():
    same = paired_test([.5]*6, [.5]*6, "permutation")
    assert same == dict(difference=0, low=0, high=0, p=1)

def test_mcnemar_without_discordant_images(): assert mcnemar_test([True, False], [1., 0.]) == dict(only_a=0, only_b=0, difference=0, p=1)

@pytest.mark.parametrize("n", [4, 50, 2001])
@pytest.mark.parametrize("kind", [int, bool, float])
def test_auc_is_sklearns(n, kind):
    "Catches midranks that go wrong for many ties, and labels of another dtype."
    rng = np.random.default_rng(n)
    y, score = (np.arange(n) % 2).astype(kind), rng.integers(0, 9, n) + np.arange(n) % 2
    auc, low, high = auc_interval(pd.Series(y), pd.Series(score))
    assert auc == pytest.approx(roc_auc_score(y, score), abs=1e-12) and 0 <= low < auc < high <= 1

def test_auc_turned_round():
    "Catches an interval that is not the mirror image when the score is negated."
    y, score = np.arange(30) % 2, np.random.default_rng(0).normal(size=30)
    auc, low, high = auc_interval(y, score)
    assert auc_interval(y, -score) == pytest.approx((1 - auc, 1 - high, 1 - low), abs=1e-12)

def test_perfect_auc_has_no_interval():
    "Catches an interval of width 0 and a p of 0 out of four images."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert auc_interval(Y, Y) == pytest.approx((1, np.nan, np.nan), nan_ok=True)
        assert auc_interval(Y, [1, 1, 0, 0])[0] == 0
        result = delong_test(Y, Y, [5, 5, 5, 5])
    assert (result["difference"], np.isnan(result["p"]), np.isnan(result["low"])) == (.5, True, True)

@pytest.mark.parametrize("method", ["holm", "bonferroni", "fdr_bh"])
def test_adjust_p_edges(method):
    "Catches a single p that is changed, a p above 1, and a Series that comes back as an array or in another order."
    assert adjust_p([.03], method).tolist() == [.03] and adjust_p([1., 1., .9], method).max() == 1
    p = adjust_p(pd.Series([.5, .001], ["b", "a"], name="p"), method)
    assert p.index.tolist() == ["b", "a"] and p.name == "p" and p["a"] == pytest.approx(.002) and p["b"] >= .5

@pytest.mark.parametrize("n, m, shift", [(2, 2, 0), (3, 8, 1), (500, 500, 0), (5, 5, 1000)])
def test_effect_size_interval_holds_its_effect(n, m, shift):
    "Catches a noncentral t that is not found, for few values and for huge effects."
    rng = np.random.default_rng(0)
    g, low, high = effect_size(rng.normal(shift, 1, n), rng.normal(0, 1, m))
    assert np.isfinite([g, low, high]).all() and low < g < high
    g, low, high = effect_size([1, 2, 3.5], [0, 0, 0], paired=True)
    assert effect_size([0, 0, 0], [1, 2, 3.5], paired=True) == pytest.approx((-g, -high, -low))

def test_effect_size_interval_is_that_of_t():
    "Catches an interval in the wrong unit: it excludes 0 exactly where the t test rejects."
    for seed in range(40):
        a, b = np.random.default_rng(seed).normal([[1.], [0.]], 1, (2, 7))
        for paired, test in ((False, stats.ttest_ind), (True, stats.ttest_rel)):
            _, low, high = effect_size(a, b, paired)
            assert (low > 0 or high < 0) == (test(a, b).pvalue < .05)

@pytest.mark.parametrize("share", [0, .001, .3, .5, 1])
@pytest.mark.parametrize("half_width", [.49, .1, .001])
def test_sample_size_is_mirrored(share, half_width):
    n = sample_size(half_width, share=share)
    assert isinstance(n, int) and n >= 1 and n == sample_size(half_width, share=1 - share) <= sample_size(half_width, share=.5)

def test_sample_size_of_values():
    "Catches a unit: only half_width/sd counts; never below the two values that a spread needs."
    assert sample_size(.01, sd=.05) == sample_size(1, sd=5) == sample_size(20, sd=100) and sample_size(1e6, sd=1) == 2
