# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy", "safetensors==0.8.0"]
# ///
"""Snapshots of NVIDIA's EDM with random weights (networks DDPM++, NCSN++ and ADM), and what they give.

    python tests/goldens/edm.py
    python tests/goldens/edm.py --sweep 40 --seed 1 --waft target/release/waft

The network, its preconditioning and the way in which it is pickled are written here anew, after Song et al., 2021
(arXiv:2011.13456, appendix H), Dhariwal and Nichol, 2021 (arXiv:2105.05233) and Karras et al., 2022 (arXiv:2206.00364, table 1 and
appendix F.1), with the names of the project's own code. The second line draws configurations from a seed, and holds calls and pictures of `waft` against them.
"""

import argparse
import json
import math
import pickle
import random
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

HERE = Path(__file__).parent


def module(name: str, **members) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(members)
    sys.modules[name] = made
    return made


def reconstruct(meta):
    raise RuntimeError("nothing of a pickled network is executed")


reconstruct.__module__, reconstruct.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
module("torch_utils")
module("torch_utils.persistence", _reconstruct_persistent_obj=reconstruct)


class EasyDict(dict):
    __module__, __qualname__ = "dnnlib.util", "EasyDict"


module("dnnlib")
module("dnnlib.util", EasyDict=EasyDict)


class Persistent(nn.Module):
    """Pickles as its class's name and source and its attributes."""

    def __reduce__(self):
        state = dict(vars(self)) | {"_init_args": (), "_init_kwargs": EasyDict(scale=np.sqrt(0.5))}
        source = "raise RuntimeError('executed')\n"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": type(self).__name__, "state": state}
        return reconstruct, (meta,), None


class Linear(Persistent):
    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(0.3 * torch.randn(outputs)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Conv2d(Persistent):
    """A convolution behind, or if `fused` before, a resampling filter."""

    def __init__(self, inputs: int, outputs: int, kernel: int, way: str = "", taps=(1, 1), fused: bool = False):
        super().__init__()
        self.way, self.fused, self.inputs = way, fused, inputs
        area = inputs * kernel * kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / math.sqrt(area)) if kernel else None
        self.bias = nn.Parameter(0.3 * torch.randn(outputs)) if kernel else None
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        self.register_buffer("resample_filter", torch.outer(line, line)[None, None] if way else None)

    def forward(self, x):
        pad = self.weight.shape[-1] // 2 if self.weight is not None else 0
        if self.fused:
            border = (self.resample_filter.shape[-1] - 1) // 2
            y = F.conv2d(x, self.weight, padding=pad + border)
            y = F.conv2d(y, self.resample_filter.repeat(y.shape[1], 1, 1, 1), stride=2, groups=y.shape[1])
            return y + self.bias[:, None, None]
        if self.way:
            border = (self.resample_filter.shape[-1] - 1) // 2
            resample = F.conv_transpose2d if self.way == "up" else F.conv2d
            gain = 4 if self.way == "up" else 1
            taps = gain * self.resample_filter.repeat(self.inputs, 1, 1, 1)
            x = resample(x, taps, stride=2, padding=border, groups=self.inputs)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=pad)


class GroupNorm(Persistent):
    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.num_groups, self.eps = min(32, channels // 4), eps
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(channels))
        self.bias = nn.Parameter(0.3 * torch.randn(channels))

    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class UNetBlock(Persistent):
    """Of SongUNet; `adm`: of DhariwalUNet, which scales and shifts, and attends with as many heads of 64 channels as fit."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, taps, way: str = "", attention: bool = False, adm: bool = False
    ):
        super().__init__()
        self.inputs, self.outputs, self.adm = inputs, outputs, adm
        self.skip_scale, eps = (1, 1e-5) if adm else (np.sqrt(0.5), 1e-6)
        self.norm0, self.conv0 = GroupNorm(inputs, eps), Conv2d(inputs, outputs, 3, way, taps)
        self.affine = Linear(embedding, outputs * (1 + adm))
        self.norm1, self.conv1 = GroupNorm(outputs, eps), Conv2d(outputs, outputs, 3)
        kernel = 0 if adm and inputs == outputs else 1
        self.skip = Conv2d(inputs, outputs, kernel, way, taps) if way or inputs != outputs else None
        self.heads = 0 if not attention else outputs // 64 if adm else 1
        if self.heads:
            self.norm2 = GroupNorm(outputs, eps)
            self.qkv, self.proj = Conv2d(outputs, 3 * outputs, 1), Conv2d(outputs, outputs, 1)

    def forward(self, x, embedding):
        h, params = self.conv0(F.silu(self.norm0(x))), self.affine(embedding)[:, :, None, None]
        if self.adm:
            scale, shift = params.chunk(2, dim=1)
            h = shift + self.norm1(h) * (scale + 1)
        else:
            h = self.norm1(h + params)
        h = self.conv1(F.silu(h))
        x = (h + (x if self.skip is None else self.skip(x))) * float(self.skip_scale)
        if not self.heads:
            return x
        # The outputs of the projection are a query, a key and a value of each channel of each head.
        joint = self.qkv(self.norm2(x)).unflatten(1, (self.heads, -1, 3)).flatten(4)
        query, key, value = joint.unbind(3)
        weights = (query.transpose(2, 3) @ (key / math.sqrt(key.shape[2]))).softmax(3)
        context = (value @ weights.transpose(2, 3)).flatten(1, 2).unflatten(2, x.shape[2:])
        return (self.proj(context) + x) * float(self.skip_scale)


class PositionalEmbedding(Persistent):
    def __init__(self, channels: int, endpoint: bool = True):
        super().__init__()
        self.channels, self.endpoint = channels, endpoint

    def forward(self, t):
        half = self.channels // 2
        angles = torch.outer(t, (1 / 10000) ** (torch.arange(half) / (half - self.endpoint)))
        return torch.cat((angles.sin(), angles.cos()), 1)


class FourierEmbedding(Persistent):
    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(channels // 2))

    def forward(self, t):
        angles = torch.outer(t, 2 * np.pi * self.freqs)
        return torch.cat((angles.sin(), angles.cos()), 1)


def encode(enc, name: str, block, kept: list[int], outputs: int, attentions: list[bool]) -> int:
    """Adds the blocks of a level on the way down; their channels."""
    last = kept[-1]
    for index, attention in enumerate(attentions):
        enc[f"{name}_block{index}"] = block(last, outputs, attention=attention)
        last = outputs
        kept.append(last)
    return last


def decode(dec, name: str, block, last: int, is_first: bool, kept: list[int], outputs: int, attentions: list[bool]) -> int:
    """Adds the blocks of a level on the way up; their channels."""
    if is_first:
        dec[f"{name}_in0"] = block(last, last, attention=True)
        dec[f"{name}_in1"] = block(last, last)
    else:
        dec[f"{name}_up"] = block(last, last, way="up")
    for index, attention in enumerate(attentions):
        dec[f"{name}_block{index}"] = block(last + kept.pop(), outputs, attention=attention)
        last = outputs
    return last


class SongUNet(Persistent):
    def __init__(self, config: dict):
        super().__init__()
        side, channels, width = config["side"], config["channels"], config["width"]
        mults, blocks, taps, attends = config["mults"], config["blocks"], config["taps"], config["attends"]
        noise, embedding = width * config["noise"], 4 * width
        self.map_noise = (FourierEmbedding if config["fourier"] else PositionalEmbedding)(noise)
        self.label_dropout = config["label_dropout"]
        self.map_label = Linear(config["classes"], noise) if config["classes"] else None
        self.map_augment = Linear(9, noise, bias=False)
        self.map_layer0, self.map_layer1 = Linear(noise, embedding), Linear(embedding, embedding)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        last, beside, kept = width, channels, []

        def block(inputs, outputs, **options):
            return UNetBlock(inputs, outputs, embedding, taps, **options)

        for level, mult in enumerate(mults):
            name = f"{side >> level}x{side >> level}"
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(channels, width, 3)
            else:
                self.enc[f"{name}_down"] = block(last, last, way="down")
                if config["encoder"] == "skip":
                    self.enc[f"{name}_aux_down"] = Conv2d(beside, beside, 0, "down", taps)
                    self.enc[f"{name}_aux_skip"] = Conv2d(beside, last, 1)
                if config["encoder"] == "residual":
                    self.enc[f"{name}_aux_residual"] = Conv2d(beside, last, 3, "down", taps, fused=True)
                    beside = last
            kept.append(last)
            last = encode(self.enc, name, block, kept, width * mult, [level in attends] * blocks)
        for level, mult in reversed(list(enumerate(mults))):
            name = f"{side >> level}x{side >> level}"
            attentions, is_first = [False] * blocks + [level in attends], level == len(mults) - 1
            last = decode(self.dec, name, block, last, is_first, kept, width * mult, attentions)
            if config["decoder"] == "skip" or level == 0:
                if config["decoder"] == "skip" and level < len(mults) - 1:
                    self.dec[f"{name}_aux_up"] = Conv2d(channels, channels, 0, "up", taps)
                self.dec[f"{name}_aux_norm"], self.dec[f"{name}_aux_conv"] = GroupNorm(last), Conv2d(last, channels, 3)

    def forward(self, x, noise, labels=None):
        embedding = self.map_noise(noise)
        if self.map_label is not None:
            embedding = embedding + self.map_label(labels * np.sqrt(labels.shape[1]))
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))
        beside, kept = x, []
        for name, part in self.enc.items():
            if "aux_down" in name:
                beside = part(beside)
            elif "aux_skip" in name:
                x = kept[-1] = x + part(beside)
            elif "aux_residual" in name:
                x = kept[-1] = beside = (x + part(beside)) / np.sqrt(2)
            else:
                x = part(x, embedding) if isinstance(part, UNetBlock) else part(x)
                kept.append(x)
        picture = None
        for name, part in self.dec.items():
            if "aux_up" in name:
                picture = part(picture)
            elif "aux_norm" in name:
                normalized = part(x)
            elif "aux_conv" in name:
                own = part(F.silu(normalized))
                picture = own if picture is None else picture + own
            else:
                x = torch.cat((x, kept.pop()), 1) if x.shape[1] != part.inputs else x
                x = part(x, embedding)
        return picture


class DhariwalUNet(Persistent):
    def __init__(self, config: dict):
        super().__init__()
        side, channels, width = config["side"], config["channels"], config["width"]
        mults, blocks, attends = config["mults"], config["blocks"], config["attends"]
        embedding = 4 * width
        self.map_noise, self.label_dropout = PositionalEmbedding(width, endpoint=False), config["label_dropout"]
        self.map_augment = Linear(9, width, bias=False)
        self.map_layer0, self.map_layer1 = Linear(width, embedding), Linear(embedding, embedding)
        self.map_label = Linear(config["classes"], embedding, bias=False) if config["classes"] else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        last, kept = channels, []

        def block(inputs, outputs, **options):
            return UNetBlock(inputs, outputs, embedding, (1, 1), adm=True, **options)

        for level, mult in enumerate(mults):
            name = f"{side >> level}x{side >> level}"
            if level == 0:
                self.enc[f"{name}_conv"] = Conv2d(channels, width * mult, 3)
                last = width * mult
            else:
                self.enc[f"{name}_down"] = block(last, last, way="down")
            kept.append(last)
            last = encode(self.enc, name, block, kept, width * mult, [level in attends] * blocks)
        for level, mult in reversed(list(enumerate(mults))):
            name = f"{side >> level}x{side >> level}"
            attentions, is_first = [level in attends] * (blocks + 1), level == len(mults) - 1
            last = decode(self.dec, name, block, last, is_first, kept, width * mult, attentions)
        self.out_norm, self.out_conv = GroupNorm(last, 1e-5), Conv2d(last, channels, 3)

    def forward(self, x, noise, labels=None):
        # Unlike SongUNet, cosines come first.
        embedding = torch.cat(self.map_noise(noise).chunk(2, 1)[::-1], 1)
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.map_label is not None:
            embedding = embedding + self.map_label(labels)
        embedding, kept = F.silu(embedding), []
        for part in self.enc.values():
            x = part(x, embedding) if isinstance(part, UNetBlock) else part(x)
            kept.append(x)
        for part in self.dec.values():
            x = torch.cat((x, kept.pop()), 1) if x.shape[1] != part.inputs else x
            x = part(x, embedding)
        return self.out_conv(F.silu(self.out_norm(x)))


class EDMPrecond(Persistent):
    def __init__(self, config: dict, sigma_data: float):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = config["side"], config["channels"], config["classes"]
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), sigma_data
        self.model = (DhariwalUNet if config["adm"] else SongUNet)(config)

    def one_hot(self, classes):
        """The labels of classes; none is that behind the last."""
        return F.one_hot(classes, self.label_dim + 1)[:, : self.label_dim].float() if self.label_dim else None

    def forward(self, x, sigma, classes=None):
        total = sigma**2 + self.sigma_data**2
        out = self.model(x / total.sqrt(), (sigma.log() / 4).reshape(1).expand(len(x)), self.one_hot(classes))
        return x * self.sigma_data**2 / total + out * sigma * self.sigma_data / total.sqrt()


def save(network: EDMPrecond, path: Path, protocol: int = 4) -> None:
    """As the training saves it: the average, and what else there is."""
    snapshot = {"ema": network, "loss_fn": None, "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset"}}
    path.write_bytes(pickle.dumps(snapshot, protocol))


NCSNPP = {
    "side": 8, "channels": 3, "width": 8, "mults": [1, 2], "blocks": 1, "attends": [1], "noise": 2, "fourier": True,
    "encoder": "residual", "decoder": "standard", "taps": [1, 3, 3, 1], "classes": 0, "label_dropout": 0,
    "adm": False,
}
DDPMPP = NCSNPP | {
    "mults": [1], "attends": [], "noise": 1, "fourier": False, "encoder": "standard", "taps": [1, 1], "classes": 3,
    "label_dropout": 0.1,
}

ADM = DDPMPP | {"mults": [1, 2], "classes": 2, "label_dropout": 0, "adm": True}


@torch.no_grad()
def call(network: EDMPrecond, config: dict, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn((3, config["channels"], config["side"], config["side"]), generator=generator)
    timestep = torch.tensor([-1, 0, 1])
    if not config["classes"]:
        return {"sample": sample, "timestep": timestep, "out": network.model(sample, timestep.float()).contiguous()}
    # The last is no class, if the network knows that.
    classes = torch.tensor([0, 1, config["classes"] - (config["label_dropout"] == 0)])
    out = network.model(sample, timestep.float(), network.one_hot(classes)).contiguous()
    return {"sample": sample, "timestep": timestep, "class_labels": classes, "out": out}


@torch.no_grad()
def draw(network: EDMPrecond, latents: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
    """Euler's method over the noise levels of the paper, from 80 to 0.002; of class 1, if there are any."""
    classes = torch.ones(len(latents), dtype=torch.int64)

    def denoised(x, sigma):
        drawn = network(x, sigma, classes)
        if guidance == 1:
            return drawn
        without = network(x, sigma, torch.full_like(classes, network.label_dim))
        return without + guidance * (drawn - without)

    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    levels = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    x = latents * math.sqrt(80**2 + 1)
    for now, after in zip(levels, levels[1:]):
        x = x + (after - now) * (x - denoised(x, torch.tensor(now))) / now
    return x


def seeded(config: dict, seed: int, sigma_data: float = 0.5) -> EDMPrecond:
    torch.manual_seed(seed)
    network = EDMPrecond(config, sigma_data).eval()
    return network


def random_config(rng: random.Random) -> dict:
    levels = rng.randint(1, 3)
    config = {
        "side": rng.choice((4, 8)), "channels": rng.choice((1, 3)), "width": rng.choice((4, 8, 12)),
        "mults": [rng.choice((1, 2)) for _ in range(levels)], "blocks": rng.randint(1, 2),
        "attends": [level for level in range(levels) if rng.random() < 0.4], "noise": rng.choice((1, 2)),
        "fourier": rng.random() < 0.5, "encoder": rng.choice(("standard", "skip", "residual")),
        "decoder": rng.choice(("standard", "skip")), "taps": rng.choice(([1, 1], [1, 3, 3, 1])),
        "classes": rng.choice((0, 2, 5)), "label_dropout": rng.choice((0, 0.1)), "adm": rng.random() < 0.3,
    }
    # A fourth of ADM has channels for one head or two.
    return config | {"width": 64} if config["adm"] and rng.random() < 0.25 else config


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def run(waft: Path, *arguments) -> str | None:
    """What went wrong, if something did."""
    done = subprocess.run([waft, *map(str, arguments)], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()


def check(waft: Path, config: dict, seed: int, folder: Path) -> tuple[float, float, str]:
    """The relative errors of three calls and of two pictures."""
    rng = random.Random(seed)
    network, sigma_data = None, rng.choice((0.5, 0.3))
    network = seeded(config, seed, sigma_data)
    snapshot = folder / "network-snapshot-000001.pkl"
    save(network, snapshot, rng.choice((3, 4)))
    tensors = call(network, config, seed)
    expected = tensors.pop("out")
    save_file(tensors, folder / "in.safetensors")
    out = folder / "out.safetensors"
    if refused := run(waft, "predict", snapshot, "--input", folder / "in.safetensors", "--out", out):
        return math.inf, math.inf, refused
    of_call = relative_error(load_file(out)["out"], expected)
    # Networks of random weights are chaotic: what they predict is made small.
    last = network.model.out_conv if config["adm"] else network.model.dec[f"{config['side']}x{config['side']}_aux_conv"]
    with torch.no_grad():
        last.weight.mul_(0.02)
        last.bias.mul_(0.02)
    save(network, snapshot)
    latents = torch.randn((2, config["channels"], config["side"], config["side"]))
    save_file({"latents": latents}, folder / "latents.safetensors")
    model = folder / "model.waft"
    if refused := run(waft, "export-weights", snapshot, "--out", model, "--precision", "f32", "--steps", 8):
        return of_call, math.inf, refused
    guidance = 1.5 if config["classes"] and config["label_dropout"] else 1
    options = ["--class", 1, "--guidance", guidance] if config["classes"] else []
    if refused := run(waft, "sample", "--model", model, "--latents", folder / "latents.safetensors", "--out", out, *options):
        return of_call, math.inf, refused
    return of_call, relative_error(load_file(out)["sample"], draw(network, latents, 8, guidance).clamp(-1, 1)), ""


def sweep(waft: Path, count: int, seed: int) -> None:
    worst, failures = [0.0, 0.0], 0
    for index in range(count):
        config = random_config(random.Random(1000 * seed + index))
        with tempfile.TemporaryDirectory() as folder:
            *errors, refused = check(waft, config, 1000 * seed + index, Path(folder))
        is_good = errors[0] <= 1e-5 and errors[1] <= 1e-3
        failures += not is_good
        worst = [max(pair) for pair in zip(worst, errors)]
        print(f"{index:3} {errors[0]:9.1e} {errors[1]:9.1e} {'ok' if is_good else 'DIFFERS'} {json.dumps(config)} {refused}")
    print(f"{count} snapshots: worst call {worst[0]:.1e}, worst picture {worst[1]:.1e}, {failures} above their bounds")
    sys.exit(failures > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--waft", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.sweep:
        sweep(args.waft, args.sweep, args.seed)
    for name, config, seed in (("edm", NCSNPP, 90), ("edm_classes", DDPMPP, 92), ("edm_adm", ADM, 94)):
        network = seeded(config, seed)
        (HERE / name).mkdir(exist_ok=True)
        save(network, HERE / name / "network-snapshot-000001.pkl")
        save_file(call(network, config, seed + 1), HERE / f"{name}_predict.safetensors")


if __name__ == "__main__":
    main()
