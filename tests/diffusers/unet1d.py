# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Holds waft against live diffusers' `UNet1DModel`: networks drawn at random from a seed, those that diffusers does not run among them.

    python tests/diffusers/unet1d.py [--networks 100] [--seed 0] [--binary WAFT]

What diffusers runs must agree to 1e-5 of the largest value with diffusers in double precision (its time embeddings in single, as they
are), since some of these networks lose that much in single precision; what it does not run must be refused. Exits with 1 if anything
differs.
"""

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import UNet1DModel
from safetensors.torch import load_file, save_file
from sweep import CALL_BOUND, ROOT, relative_error, waft

ATTENDING = ("AttnDownBlock1D", "AttnUpBlock1D")


def draw(rng: random.Random) -> dict:
    """A network of sound or of trajectories, most of which diffusers runs."""
    levels = rng.choice((1, 2, 2, 3, 3, 4))
    if rng.random() < 0.5:
        channels = [rng.choice((32, 32, 64, 80, 96)) for _ in range(levels)]
        first = channels[0]
        fourier = rng.random() < 0.5
        width = rng.choice((None, None, 6, 16)) if fourier else rng.choice((None, 8))
        time = (width or 2 * first) if fourier else first
        with_time = rng.random() < 0.7
        # The blocks in the middle attend, and those at the ends may.
        channels = channels if rng.random() < 0.97 else [20] * levels
        downs = ["DownBlock1DNoSkip"] if with_time else []
        downs += [rng.choice(("DownBlock1D", "AttnDownBlock1D")) for _ in range(levels - len(downs))]
        ups = [rng.choice(("UpBlock1D", "AttnUpBlock1D")) for _ in range(levels - with_time)]
        ups += ["UpBlock1DNoSkip"] if with_time else []
        halvings = levels - with_time + 1
        return {
            "sample_size": 2**halvings * rng.randint(max(1, 4 // 2 ** (halvings - 1)), 5) + (rng.random() < 0.05),
            "in_channels": rng.choice((1, 2, 3)), "out_channels": rng.choice((1, 2, 3, 32)),
            "extra_in_channels": time if with_time else rng.choice((0, 0, 0, 0, 4)),
            "time_embedding_type": "fourier" if fourier else "positional", "time_embedding_dim": width,
            "flip_sin_to_cos": rng.random() < 0.5, "freq_shift": rng.choice((0, 1)),
            "use_timestep_embedding": rng.random() < 0.04, "act_fn": rng.choice((None, "silu")),
            "down_block_types": downs, "up_block_types": ups, "block_out_channels": channels,
            "layers_per_block": rng.choice((1, 2)),
        }
    channels = [rng.choice((8, 16, 24, 32)) for _ in range(levels)] if rng.random() < 0.97 else [12] * levels
    halves = rng.random() < 0.05
    ups = rng.choice((levels - 1, levels - 1, levels, levels - 2))
    config = {
        "sample_size": 2 ** (levels - 1) * rng.randint(1, 8) + (rng.random() < 0.05),
        "in_channels": rng.choice((1, 3, 14)), "out_channels": rng.choice((1, 3, 14)),
        "extra_in_channels": rng.choice((0,) * 20 + (3,)),
        "time_embedding_type": rng.choice(("fourier", "positional", "positional")),
        "time_embedding_dim": rng.choice((None, None, 10)),
        "flip_sin_to_cos": rng.random() < 0.5, "freq_shift": rng.choice((0, 1)),
        "use_timestep_embedding": rng.random() < 0.96, "act_fn": rng.choice(("silu", "swish", "mish", "gelu", "relu", None)),
        "down_block_types": ["DownResnetBlock1D"] * levels, "up_block_types": ["UpResnetBlock1D"] * max(0, ups),
        "mid_block_type": rng.choice(("MidResTemporalBlock1D",) * 8 + ("ValueFunctionMidBlock1D", "UNetMidBlock1D")),
        "out_block_type": rng.choice((None, "OutConv1DBlock", "OutConv1DBlock")),
        "norm_num_groups": rng.choice((8, 4, 1, None, 5)), "block_out_channels": channels,
        "layers_per_block": rng.choice((1, 2)), "downsample_each_block": halves,
    }
    if rng.random() < 0.1 and levels > 1:
        # Blocks of both kinds.
        config["block_out_channels"] = [32] * levels
        config["down_block_types"][rng.randrange(levels)] = "DownBlock1D"
    return config


@torch.no_grad()
def reference(config: dict, seed: int, folder: Path) -> torch.Tensor:
    """Three calls by diffusers, and their inputs and the checkpoint in a folder."""
    torch.manual_seed(seed)
    model = UNet1DModel(**config).eval()
    for parameter in model.parameters():
        # Norms and biases too, so that a mix-up shows.
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder / "model")
    tensors = {
        "sample": torch.randn(3, config["in_channels"], config["sample_size"]),
        "timestep": torch.tensor([0, 999, torch.randint(1, 999, ()).item()]),
    }
    save_file(tensors, folder / "in.safetensors")
    # It is as it runs that it is refused or not.
    model(tensors["sample"], tensors["timestep"])
    embed = copy.deepcopy(model.time_proj)
    model.double().time_proj.forward = lambda timestep: embed(timestep.float()).double()
    found = model(tensors["sample"].double(), tensors["timestep"]).sample
    if found.shape[2] != config["sample_size"]:
        raise ValueError("the output has another length")
    return found


def check(binary: Path, config: dict, seed: int, folder: Path) -> str:
    """What was found: an error above the bound, or a refusal that diffusers does not share, begins with DIFFERS."""
    try:
        expected = reference(config, seed, folder)
    except Exception as refusal:  # noqa: BLE001 whatever PyTorch says
        expected, reason = None, " ".join(str(refusal).split())[:80]
    if not (folder / "model").exists():
        return f"ok  not built: {reason}"
    try:
        waft(binary, "predict", folder / "model", "--input", folder / "in.safetensors", "--out", folder / "out.safetensors")
    except RuntimeError as refusal:
        return f"ok  neither: {refusal} / {reason}" if expected is None else f"DIFFERS  {refusal}"
    if expected is None:
        return f"DIFFERS  diffusers does not run it: {reason}"
    error = relative_error(load_file(folder / "out.safetensors")["out"], expected)
    return f"{'ok' if error <= CALL_BOUND else 'DIFFERS'}  {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", type=Path, help="the command line of waft [default: builds xtask]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    binary = args.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "xtask"], cwd=ROOT, check=True)
        binary = ROOT / "target" / "release" / "xtask"
    found = []
    for index in range(args.networks):
        seed = 1000 * args.seed + index
        config = draw(random.Random(seed))
        with tempfile.TemporaryDirectory() as folder:
            found.append(check(binary, config, seed, Path(folder)))
        print(f"network {index:3} seed {seed:6} {found[-1]} {json.dumps(config)}", flush=True)
    errors = [float(note.split()[1]) for note in found if note.split()[1][0].isdigit()]
    differ = sum(note.startswith("DIFFERS") for note in found)
    print(f"{len(errors)} of {len(found)} networks run in diffusers: worst {max(errors, default=0):.1e}; {differ} differ")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
