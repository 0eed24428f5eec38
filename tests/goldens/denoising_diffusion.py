"""Writes small checkpoints of lucidrains' denoising-diffusion-pytorch as its trainer saves them, and what its network makes of noise.

    pip install torch denoising-diffusion-pytorch==2.3.4 safetensors
    python tests/goldens/denoising_diffusion.py                      # tests/goldens/denoising_diffusion
    python tests/goldens/denoising_diffusion.py --sweep 100 --seed 1 --waft target/release/waft

The sweep draws random configurations with random weights and holds `waft predict` against them in double precision, but for the
sinusoids of timesteps, of whatever version is installed:
1.0.0 standardizes its weights, 1.8.11 has no learned keys.
"""

import argparse
import copy
import inspect
import json
import random
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def stub(name: str, **members) -> None:
    """A module that the package imports and the network does not need."""
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    sys.modules[name] = module


for name, members in {
    "torchvision": {"transforms": None, "utils": None},
    "torchvision.transforms": {},
    "torchvision.datasets": {},
    "accelerate": {"Accelerator": None, "DistributedDataParallelKwargs": None},
    "pytorch_fid": {},
    "pytorch_fid.fid_score": {"calculate_frechet_distance": None},
    "pytorch_fid.inception": {"InceptionV3": None},
}.items():
    try:
        __import__(name)
    except ImportError:
        stub(name, **members)

from denoising_diffusion_pytorch.denoising_diffusion_pytorch import GaussianDiffusion, Unet  # noqa: E402
from denoising_diffusion_pytorch.version import __version__  # noqa: E402

# The options that the installed version has.
OPTIONS = inspect.signature(Unet).parameters


def network(options: dict, seed: int) -> Unet:
    torch.manual_seed(seed)
    unet = Unet(**options).eval()
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if name.endswith((".g", "norm.weight")):
                value.copy_(1 + 0.3 * torch.randn_like(value))
            elif name.endswith(".bias"):
                value.copy_(0.1 * torch.randn_like(value))
    return unet


def save(folder: Path, unet: Unet, size: list[int], objective: str, config: dict, timesteps: int = 100) -> None:
    """What `Trainer.save` writes, of a trainer whose average has the network's weights and whose model has others."""
    # Learned frequencies and variances have wrappers of their own, which keep the same tensors.
    plain = Unet(8, channels=unet.channels)
    diffusion = GaussianDiffusion(plain, image_size=size[0], timesteps=timesteps, objective=objective)
    diffusion.model = unet
    average = {f"ema_model.{key}": value for key, value in diffusion.state_dict().items()}
    other = {key: value + 1 for key, value in diffusion.state_dict().items()}
    average |= {f"online_model.{key}": value for key, value in other.items()}
    average |= {"initted": torch.tensor(True), "step": torch.tensor(7)}
    folder.mkdir(parents=True, exist_ok=True)
    data = {"step": 7, "model": other, "opt": {"state": {}, "param_groups": []}, "ema": average, "scaler": None, "version": "2.3.4"}
    torch.save(data, folder / "model-1.pt")
    config = {"_class_name": "denoising_diffusion_pytorch.Unet", "image_size": size} | config
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def call(unet: Unet, size: list[int], channels: int, count: int = 2, timesteps: int = 100) -> dict[str, torch.Tensor]:
    sample = torch.randn(count, channels, *size)
    timestep = torch.randint(timesteps, (count,))
    with torch.no_grad():
        out = unet(sample, timestep)
    return {"sample": sample, "timestep": timestep, "out": out}


class Doubled(torch.nn.Module):
    """What a module says in single precision, in double precision."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x).double()


def exact(unet: Unet, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """The call in double precision but for the sinusoids of the timestep, whose angles single precision rounds."""
    double = copy.deepcopy(unet).double()
    double.time_mlp[0] = Doubled(unet.time_mlp[0])
    with torch.no_grad():
        return double(sample.double(), timestep)


def draw(choose: random.Random) -> tuple[dict, list[int], str]:
    """A configuration that fits a device, a size, an objective."""
    levels = choose.choice([1, 2, 2, 3])
    dim = choose.choice([8, 12, 16])
    options = {
        "dim": dim,
        "init_dim": choose.choice([None, None, dim + 4]),
        "dim_mults": tuple(choose.choice([1, 1, 2, 3]) for _ in range(levels)),
        "channels": choose.choice([1, 3, 3, 4]),
        "attn_heads": choose.choice([1, 2, 4]),
        "attn_dim_head": choose.choice([4, 8, 16, 6]),
        "learned_variance": choose.random() < 0.2,
    }
    sinusoid = choose.random()
    if sinusoid < 0.15:
        options |= {"learned_sinusoidal_cond": True, "learned_sinusoidal_dim": choose.choice([8, 16])}
    elif sinusoid < 0.3:
        options |= {"random_fourier_features": True, "learned_sinusoidal_dim": choose.choice([8, 16])}
    elif sinusoid < 0.4:
        options |= {"sinusoidal_pos_emb_theta": 500}
    if "resnet_block_groups" in OPTIONS:
        options |= {"dim": choose.choice([8, 16]), "init_dim": None, "resnet_block_groups": choose.choice([2, 4, 8])}
    if choose.random() < 0.4:
        options["full_attn"] = tuple(choose.random() < 0.5 for _ in range(levels))
        if not any(options["full_attn"]) and levels == 1:
            del options["full_attn"]
    factor = 2 ** (levels - 1)
    options = {key: value for key, value in options.items() if key in OPTIONS}
    if "full_attn" not in options and "full_attn" in OPTIONS and __version__.startswith("1."):
        options["full_attn"] = (False,) * (levels - 1) + (True,)
    size = [factor * choose.choice([2, 3, 4]) for _ in range(2)]
    return options, size, choose.choice(["pred_noise", "pred_x0", "pred_v"])


def configuration(options: dict) -> dict:
    """What the tensors do not say."""
    config = {key: options[key] for key in ["sinusoidal_pos_emb_theta", "resnet_block_groups"] if key in options}
    if "resnet_block_groups" in options:
        config |= {"version": __version__, "objective": "pred_noise"}
        config |= {"attn_heads": options["attn_heads"]} if "attn_heads" in options else {}
    if options["channels"] % 2 == 0:
        config["channels"] = options["channels"]
    return config


def sweep(count: int, seed: int, waft: str) -> None:
    choose = random.Random(seed)
    worst, failures = 0.0, 0
    for index in range(count):
        options, size, objective = draw(choose)
        unet = network(options, seed * 100_003 + index)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            save(folder / "model", unet, size, objective, configuration(options))
            reference = call(unet, size, options["channels"])
            expected = exact(unet, reference["sample"], reference["timestep"])
            save_file({key: reference[key] for key in ["sample", "timestep"]}, folder / "in.safetensors")
            command = [waft, "predict", folder / "model", "--input", folder / "in.safetensors", "--out", folder / "out.safetensors"]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                print(f"{index}: {options} {size}: {run.stderr.strip()}", flush=True)
                failures += 1
                continue
            found = load_file(folder / "out.safetensors")["out"]
        error, own = (((out - expected).abs().max() / expected.abs().max()).item() for out in (found, reference["out"]))
        worst = max(worst, error)
        if not error <= 1e-5:
            print(f"{index}: {options} {size}: {error:.2e}, PyTorch {own:.2e}", flush=True)
            failures += 1
    print(f"{count} networks, seed {seed}: worst {worst:.2e}, {failures} failures")
    sys.exit(failures > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--waft", default="waft")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.sweep:
        sweep(args.sweep, args.seed, args.waft)
    here = Path(__file__).parent
    options = {"dim": 4, "dim_mults": (1, 2), "channels": 3, "attn_heads": 2, "attn_dim_head": 6}
    unet = network(options, 5)
    # Random networks are chaotic where they are sampled; a small output is not.
    with torch.no_grad():
        unet.final_conv.weight.mul_(0.1)
    save(here / "denoising_diffusion", unet, [8, 6], "pred_v", {})
    reference = call(unet, [8, 6], 3)
    diffusion = GaussianDiffusion(unet, image_size=[8, 6], timesteps=100, sampling_timesteps=5, objective="pred_v")
    latents = torch.randn(2, 3, 8, 6)
    randn, torch.randn = torch.randn, lambda *shape, **_: latents
    reference |= {"latents": latents, "pictures": 2 * diffusion.ddim_sample((2, 3, 8, 6)) - 1}
    torch.randn = randn
    save_file({key: value.contiguous() for key, value in reference.items()}, here / "denoising_diffusion.safetensors")


if __name__ == "__main__":
    main()
