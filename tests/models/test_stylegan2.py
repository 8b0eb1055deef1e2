"StyleGAN2's networks refuse what they cannot be, resample with the right derivatives, and keep small blocks in float32."
import pytest
import torch

from medgan.core.checks import ParameterError
from medgan.models.stylegan2 import Discriminator, Generator, _Filter, downsample, upsample

WRONG = [(dict(size=24), "size=24: must be a power of two"), (dict(size=8), "size=8"), (dict(size=32, channels=5), "channels=5"),
         (dict(size=32, n_classes=-1), "n_classes=-1")]

@pytest.mark.parametrize("network", [Generator, Discriminator])
@pytest.mark.parametrize("wrong, message", WRONG)
def test_bad_networks(network, wrong, message):
    "Catches networks of a size that no chain of halvings reaches, with an error from deep inside torch or none at all."
    with pytest.raises(ParameterError, match=message): network(**wrong)

@pytest.mark.parametrize("resampled", [downsample, upsample, lambda x: _Filter.apply(x, 1), lambda x: _Filter.apply(x, 2)],
                         ids=["down", "up", "filter 1", "filter 2"])
def test_derivatives_of_resampling(resampled):
    "Catches a transpose with the wrong zeros around or the wrong factor, in the first and in the second derivative."
    x = torch.randn(2, 3, 6, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resampled(x).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: resampled(x).square(), x)

@pytest.mark.parametrize("size, wide", [(16, [4]), (32, [4]), (64, [4]), (128, [4, 8])])
def test_small_blocks_stay_in_float32(size, wide):
    "Catches half precision below 8 px, or below an eighth of the side, in either network."
    G, D = Generator(size, z_dim=8, w_dim=8, base=512, most=8), Discriminator(size, base=512, most=8)
    seen = {}
    def note(name):
        def hook(module, given, result): seen[name] = (result[0] if isinstance(result, tuple) else result).dtype
        return hook
    for net, blocks in ((G, G.synthesis), (D, D)):
        for name, block in blocks.named_children():
            if name.startswith("b"): block.register_forward_hook(note((type(net).__name__, name)))
    with torch.autocast("cpu", torch.bfloat16): D(G(torch.randn(2, 8)))
    full = {(net, f"b{s}") for net in ("Generator", "Discriminator") for s in wide}
    assert {where for where, dtype in seen.items() if dtype == torch.float32} == full
    assert len(seen) == 2*(size.bit_length() - 2)

def test_constants_ask_for_no_gradient():
    "Catches a filter whose taps are differentiated: the second derivative of a depthwise convolution takes ten times as long."
    D = Discriminator(16, base=64, most=8)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as taken:
        slope, = torch.autograd.grad(D(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    backward = [e for e in taken.events() if e.name == "aten::convolution_backward" and e.input_shapes[2][1:] == [1, 4, 4]]
    assert not backward
