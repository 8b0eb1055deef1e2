"The best epoch is kept, and the best checkpoint chosen."
from copy import deepcopy

import numpy as np
import pytest
from small_runs import contents
from torch import full, nn

from medgan.core.checks import ParameterError
from medgan.training.checkpoints import CheckpointError, load_checkpoint, same_state
from medgan.training.loop import NonFiniteLoss
from medgan.training.selection import choose_checkpoint, has_turned, keep_best

def fake_epochs(net, scores, seen):
    "Every epoch changes weights and batch norm's averages and count; `seen` receives them."
    for epoch, score in enumerate(scores, 1):
        net(full((4, 2), float(epoch)))
        nn.init.constant_(net.weight, epoch)
        seen.append(deepcopy(net.state_dict()))
        yield dict(epoch=epoch, score=score)

def test_best_epoch_is_kept():
    """Catches the last epoch's weights, a buffer that is forgotten, a tie that goes to the later one, a patience off by one,
    an epoch too many, and scores that must be positive."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores, (epochs, patience) = rng.integers(-4, 3, 12).tolist(), rng.integers(1, 11, 2).tolist()
        net, seen = nn.BatchNorm1d(2), []
        history = keep_best(net, fake_epochs(net, scores, seen), "score", epochs, patience)
        n = next(n for n in range(1, epochs + 1) if n == epochs or n - 1 - np.argmax(scores[:n]) == patience) # argmax: first of equal ones
        assert history.to_dict("list") == dict(epoch=list(range(1, n + 1)), score=scores[:n]) and len(seen) == n
        assert same_state(net.state_dict(), seen[np.argmax(scores[:n])])

def test_best_epoch_is_read(tmp_path):
    "Catches a net that is trained again or read for another training, a file that changes, and one that other runs cannot read."
    path, config, seen = tmp_path/"new"/"net.safetensors", dict(lr=.1, net="net"), []
    net, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    best = lambda net, rows, **changes: keep_best(net, rows, "score", 3, 3, "", str(path), config | changes)
    history = best(net, fake_epochs(net, [.1, .3, .2], seen))
    state, stored = load_checkpoint(path)
    assert same_state(state, dict(net=seen[1], history=history.to_dict("records"))) and stored == config
    before, untouched = contents(tmp_path), fake_epochs(other, [1.], seen)
    assert best(other, untouched).equals(history) and same_state(other.state_dict(), seen[1])
    other_run = "net.safetensors is of another run: lr was 0.1, is 0.2"
    with pytest.raises(CheckpointError, match=other_run): best(nn.BatchNorm1d(2), untouched, lr=.2)
    with pytest.raises(CheckpointError, match="BatchNorm1d is another architecture"): best(nn.BatchNorm1d(3), untouched)
    assert len(seen) == 3 and next(untouched)["epoch"] == 1 and contents(tmp_path) == before
    for _ in range(2):                                                       # without a config, written and read
        keep_best(net, fake_epochs(net, [1.], seen), "score", 1, 1, keep_in=str(tmp_path/"bare"))
    assert len(seen) == 5

def test_unfinished_training_is_not_kept(tmp_path):
    "Catches a file of a training that broke off: it would be read as a finished one."
    def rows():
        yield dict(score=.5)
        raise NonFiniteLoss
    with pytest.raises(NonFiniteLoss): keep_best(nn.Linear(1, 1), rows(), "score", 5, 5, keep_in=str(tmp_path/"net.safetensors"))
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("name, value", [*(("epochs", v) for v in (0, 1.5, "2")), *(("patience", v) for v in (0, -1, None))])
def test_bad_patience(name, value):
    "Catches a training that never ends, or finds out after its first epoch."
    seen, net = [], nn.BatchNorm1d(2)
    with pytest.raises(ParameterError, match=f"{name}={value!r}"):
        keep_best(net, fake_epochs(net, [1.]*9, seen), "score", **dict(epochs=3, patience=3) | {name: value})
    assert not seen

def test_best_checkpoint():
    "Catches the worst one chosen, a tolerance that takes an earlier one, and equal ones of which the last is taken without tolerance."
    rng = np.random.default_rng(0)
    for _ in range(100):
        values, tolerance = rng.integers(0, 9, 8).astype(float), float(rng.integers(0, 4))
        best, chosen = values.min(), choose_checkpoint(values, tolerance)
        assert values[chosen] - best < tolerance or (values[chosen] == best and tolerance == 0)
        later = values[chosen + 1:]
        assert tolerance == 0 or not (later - best < tolerance).any()
        assert tolerance > 0 or chosen == list(values).index(best)

def test_turned():
    "Catches a run that stops while its metric still falls, and one that never stops."
    falling, turned = np.arange(9, 0, -1.), [5., 3., 4., 4.]
    assert not any(has_turned(falling[:n], 1) for n in range(1, 10))
    assert [has_turned(turned[:n], 2) for n in range(1, 5)] == [False, False, False, True]
