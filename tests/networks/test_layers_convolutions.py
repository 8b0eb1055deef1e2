"What several networks share is computed in another way than it is written: the same numbers, gradients and names of weights."
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medgan.dermgan import DermGANGenerator
from medgan.networks.layers import DoublingConv2d, HalvingConv2d, InstanceNorm, UpConv2d, folded
from medgan.networks.patch import PatchDiscriminator
from medgan.networks.resnet import ResNetGenerator
from medgan.networks.unet import SegmentationUNet

def gradients(layer, x):
    "What a layer gives, and the gradients of its input and of all its weights, in float64."
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    slope = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], slope)]

def check_same(ours, theirs, x):
    for a, b in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        assert (a - b).abs().max() <= 1e-12*max(1., b.abs().max().item())

SHAPES = [(1, 3, 16, 16), (1, 3, 17, 16), (2, 2, 13, 27), (1, 1, 1, 256), (3, 4, 256, 1), (4, 2, 8, 8), (1, 2, 15, 17), (2, 3, 1, 1)]

@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels last"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_up_conv_is_resize_and_convolution(shape, bias, memory_format):
    "Catches a kernel that is flipped, transposed or shifted by a pixel, a border that is not zero, and a gradient that lacks a tap."
    torch.manual_seed(0)
    ours = UpConv2d(shape[1], 5, bias).double()
    convolution = nn.Conv2d(shape[1], 5, 3, padding=1, bias=bias).double()
    convolution.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=torch.double).contiguous(memory_format=memory_format)
    check_same(ours, nn.Sequential(nn.Upsample(scale_factor=2), convolution), x)

@pytest.mark.parametrize("sides, is_fast", [((2, 3, 16, 8), True), ((1, 3, 15, 17), False)])
def test_what_is_enlarged(sides, is_fast, monkeypatch):
    "Catches a layer that still makes the enlarged image where it need not, and one that folds its kernel for a few pixels."
    calls, interpolate = [], F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *args, **options: (calls.append(1), interpolate(*args, **options))[1])
    UpConv2d(3, 4)(torch.zeros(sides))
    assert len(calls) == (not is_fast)

def test_kernel_under_autocast():
    "Catches weights that are rounded to bfloat16 before they are summed, and a result that is not bfloat16 there."
    torch.manual_seed(0)
    layer, x = UpConv2d(8, 4), torch.randn(2, 8, 16, 16)
    with torch.autocast("cpu", torch.bfloat16): kernel, y = folded(layer.weight), layer(x)
    assert torch.equal(kernel, folded(layer.weight)) and kernel.dtype == torch.float32 and y.dtype == torch.bfloat16
    assert (y - layer(x)).abs().max() < .02*layer(x).abs().max()

PAIRS = {"half": (HalvingConv2d, nn.Conv2d), "twice": (DoublingConv2d, nn.ConvTranspose2d)}

@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (1, 3, 5, 7), (3, 2, 4, 6), (1, 1, 8, 8), (5, 2, 16, 16)], ids=str)
@pytest.mark.parametrize("way", PAIRS)
def test_products_are_convolutions(way, shape):
    "Catches windows in another order than the kernel's, rows that are dealt to another image, and a bias that is lost or counted twice."
    torch.manual_seed(0)
    ours, theirs = (kind(shape[1], 5, *size).double() for kind, size in zip(PAIRS[way], ((), (4, 2, 1))))
    theirs.load_state_dict(ours.state_dict())
    check_same(ours, theirs, torch.randn(shape, dtype=torch.double))
    with torch.autocast("cpu", torch.bfloat16): assert ours.float()(torch.randn(shape)).dtype == torch.bfloat16

@pytest.mark.parametrize("way, side, is_product", [("half", 16, True), ("half", 18, False), ("twice", 8, True), ("twice", 9, False)])
def test_what_is_few(way, side, is_product, monkeypatch):
    "Catches a limit that counts the larger map, or the pixels of one image only."
    calls = []
    for name in ("unfold", "fold"):
        monkeypatch.setattr(F, name, lambda *args, function=getattr(F, name), **options: (calls.append(1), function(*args, **options))[1])
    layer = PAIRS[way][0](2, 3)
    layer(torch.zeros(1, 2, side, side))
    assert len(calls) == is_product
    layer(torch.zeros(2, 2, side, side))
    assert len(calls) == is_product

@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 5, 9), (4, 3, 1, 2)], ids=str)
def test_instance_norm(shape):
    "Catches statistics over several channels or images, another epsilon, and gradients that lack those of the statistics."
    torch.manual_seed(0)
    theirs = nn.InstanceNorm2d(3, affine=True).double()
    for p in theirs.parameters(): nn.init.normal_(p)
    ours = InstanceNorm(3).double()
    ours.load_state_dict(theirs.state_dict())
    check_same(ours, theirs, 3 + torch.randn(shape, dtype=torch.double))

@pytest.mark.parametrize("is_training", [True, False])
def test_single_pixel_is_refused(is_training):
    "Catches a group norm that silently gives its shift where there is no variance."
    with pytest.raises(ValueError, match="more than 1 spatial element"): InstanceNorm(3).train(is_training)(torch.zeros(2, 3, 1, 1))

def in_plain_layers(net):
    "A network with the same weights, written as it was before: resize, convolution, PyTorch's instance norm."
    net = deepcopy(net)
    for parent in list(net.modules()):
        before = None
        for name, child in list(parent.named_children()):
            sizes = (child.in_channels, child.out_channels, 4, 2, 1) if isinstance(child, (HalvingConv2d, DoublingConv2d)) else ()
            if isinstance(child, HalvingConv2d): setattr(parent, name, nn.Conv2d(*sizes))
            if isinstance(child, DoublingConv2d): setattr(parent, name, nn.ConvTranspose2d(*sizes))
            if isinstance(child, InstanceNorm): setattr(parent, name, nn.InstanceNorm2d(child.num_features, affine=True))
            if isinstance(child, UpConv2d):
                assert isinstance(getattr(parent, before), nn.Identity)
                setattr(parent, before, nn.Upsample(scale_factor=2))
                setattr(parent, name, nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None))
            before = name
    return net

NETS = {"DermGAN": (lambda: DermGANGenerator(32, 4, dropout=0.), 3), "pix2pix": (lambda: DermGANGenerator(32, 4, "transposed", 0.), 3),
        "residual": (lambda: ResNetGenerator(1, 1, 4, 1), 1), "U-Net": (lambda: SegmentationUNet(1, 4, 2), 1),
        "U-Net, instance": (lambda: SegmentationUNet(1, 4, 2, "instance", .1, True), 1),
        "patch": (lambda: PatchDiscriminator(1, 4), 1)}

@pytest.mark.parametrize("name", NETS)
def test_whole_networks(name):
    "Catches a network whose old checkpoints do not load, or give other images."
    make, channels = NETS[name]
    torch.manual_seed(0)
    net = make().double()
    plain = in_plain_layers(net).double()
    own = UpConv2d, InstanceNorm, HalvingConv2d, DoublingConv2d
    assert any(isinstance(m, own) for m in net.modules()) and not any(isinstance(m, own) for m in plain.modules())
    for p in plain.parameters(): nn.init.normal_(p, 0, .3)
    net.load_state_dict(plain.state_dict())
    x = torch.rand(4, channels, 32, 32, dtype=torch.double)
    assert (net(x) - plain(x)).abs().max() <= 1e-6         # all of them answer in float32

def test_names_of_weights():
    "Catches a layer that is counted in another place than in the checkpoints that exist."
    def convolutions(net): return {key.removesuffix(".weight") for key, value in net.state_dict().items() if value.ndim == 4}
    assert convolutions(ResNetGenerator(1, 1, 4, 1)) == {f"layers.{i}" for i in (0, 3, 6, "9.layers.0", "9.layers.3", 11, 15, 18)}
    assert {key for key in convolutions(DermGANGenerator(32, 4)) if key.startswith("up")} == {f"up.{i}.1.1" for i in range(5)}
    assert {key for key in convolutions(SegmentationUNet(1, 4, 2)) if key.startswith("up")} == {"up.0.1", "up.1.1"}
