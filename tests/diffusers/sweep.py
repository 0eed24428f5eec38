# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Holds waft against live diffusers: networks and schedulers drawn at random from a seed.

    python tests/diffusers/sweep.py [--networks 25] [--schedulers 25] [--seed 0]

See README.md beside this script. Exits with 1 if anything differs by more than its bound.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent
DIGITS = ROOT / "models" / "digits" / "checkpoint"
CALL_BOUND = 1e-5
TRAJECTORY_BOUND = 1e-3


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest reference."""
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def waft(binary: Path, *arguments) -> str:
    environment = os.environ | {"RUST_BACKTRACE": "0"}
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode != 0:
        raise RuntimeError(" ".join(done.stderr.split()) or f"exit {done.returncode}")
    return done.stdout


def network_config(rng: random.Random) -> dict:
    """A UNet2DModel that waft supports."""
    levels = rng.choice((1, 2, 2, 3, 3, 4))
    groups = rng.choice((1, 2, 4))
    channels = [4 * groups * rng.choice((1, 2, 3)) for _ in range(levels)]
    step = 2 ** (levels - 1)
    size = rng.choice((step * rng.randint(1, 16 // step), [step * rng.randint(1, 16 // step) for _ in range(2)]))
    heads = [h for h in (None, 1, 2, 4, 8) if h is None or all(c % h == 0 for c in channels)]
    config = {
        "sample_size": size,
        "in_channels": rng.choice((1, 2, 3)),
        "block_out_channels": channels,
        "layers_per_block": rng.randint(1, 3),
        "down_block_types": [rng.choice(("DownBlock2D", "AttnDownBlock2D")) for _ in channels],
        "up_block_types": [rng.choice(("UpBlock2D", "AttnUpBlock2D")) for _ in channels],
        "norm_num_groups": groups,
        "norm_eps": rng.choice((1e-5, 1e-6)),
        "attention_head_dim": rng.choice(heads),
        "add_attention": rng.random() < 0.7,
        "center_input_sample": rng.random() < 0.3,
        "downsample_padding": rng.choice((0, 1)),
        "flip_sin_to_cos": rng.random() < 0.5,
        "freq_shift": rng.choice((0, 1)),
        "mid_block_scale_factor": rng.choice((1, 1, 1.5)),
        "num_class_embeds": rng.choice((None, None, 5)),
    }
    config["out_channels"] = config["in_channels"]
    if rng.random() < 0.3:
        config["time_embedding_dim"] = rng.choice((16, 24, 40))
    if rng.random() < 0.2:
        config["attn_norm_num_groups"] = rng.choice([g for g in (1, 2, 4) if channels[-1] % g == 0])
    if rng.random() < 0.15:
        config["mid_block_type"] = None
    return config


@torch.no_grad()
def check_network(binary: Path, config: dict, seed: int, folder: Path) -> float:
    """The relative error of three calls."""
    torch.manual_seed(seed)
    model = UNet2DModel(**config).eval()
    for parameter in model.parameters():
        # Norms and biases too, so that a mix-up shows.
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder / "model")
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    tensors = {
        "sample": torch.randn(3, config["in_channels"], height, width),
        "timestep": torch.tensor([0, 999, torch.randint(1, 999, ()).item()]),
    }
    if config["num_class_embeds"]:
        tensors["class_labels"] = torch.randint(0, config["num_class_embeds"], (3,))
    save_file(tensors, folder / "in.safetensors")
    waft(binary, "predict", folder / "model", "--input", folder / "in.safetensors", "--out", folder / "out.safetensors")
    expected = model(tensors["sample"], tensors["timestep"], class_labels=tensors.get("class_labels")).sample
    return relative_error(load_file(folder / "out.safetensors")["out"], expected)


def scheduler_config(rng: random.Random) -> tuple[dict, int]:
    """Fields of DDIMScheduler over those of the digits checkpoint, and a number of steps with a usable list."""
    while True:
        config = {
            "timestep_spacing": rng.choice(("leading", "linspace", "trailing")),
            "clip_sample": rng.choice((True, True, False, None)),
            "clip_sample_range": rng.choice((1.0, 0.8, 1.5)),
            "set_alpha_to_one": rng.choice((True, False, None)),
            "thresholding": rng.random() < 0.2,
            "beta_schedule": rng.choice(("squaredcos_cap_v2", "squaredcos_cap_v2", "linear", "scaled_linear")),
        }
        if config["timestep_spacing"] == "leading":
            config["steps_offset"] = rng.choice((0, 1))
        if config["beta_schedule"] == "squaredcos_cap_v2" and not config["clip_sample"]:
            # The first clean sample is 20,000 times the rounding of the network's output, and pictures saturate.
            config["thresholding"] = True
        steps = rng.choice((rng.randint(1, 20), rng.randint(1, 120)))
        scheduler = DDIMScheduler.from_config(DIGITS_SCHEDULER | config)
        scheduler.set_timesteps(steps)
        found = scheduler.timesteps.tolist()
        if len(found) == steps and 0 <= min(found) and max(found) < 1000:
            return config, steps


DIGITS_SCHEDULER = json.loads((DIGITS / "scheduler_config.json").read_text())


@torch.no_grad()
def check_scheduler(binary: Path, model: UNet2DModel, config: dict, steps: int, seed: int, folder: Path) -> float:
    """The relative error of two pictures that DDIM draws; infinite if the timesteps are not the same."""
    checkpoint = folder / "checkpoint"
    shutil.copytree(DIGITS, checkpoint)
    (checkpoint / "scheduler_config.json").write_text(json.dumps(DIGITS_SCHEDULER | config))
    generator = torch.Generator().manual_seed(seed)
    latents, label = torch.randn((2, 1, 8, 8), generator=generator), seed % 10
    save_file({"latents": latents}, folder / "latents.safetensors")
    file, out = folder / "model.waft", folder / "out.safetensors"
    clipped = seed % 2 == 1
    waft(
        binary, "export-weights", checkpoint, "--out", file, "--precision", "f32", "--steps", steps,
        "--use-clipped-model-output", str(clipped).lower(),
    )
    waft(binary, "sample", "--model", file, "--class", label, "--latents", folder / "latents.safetensors", "--out", out)
    scheduler = DDIMScheduler.from_config(DIGITS_SCHEDULER | config)
    scheduler.set_timesteps(steps)
    if json.loads(waft(binary, "inspect", file, "--json"))["timesteps"] != [scheduler.timesteps.tolist()]:
        return float("inf")
    sample = latents
    for t in scheduler.timesteps:
        output = model(sample, t, class_labels=torch.full((2,), label)).sample
        sample = scheduler.step(output, t, sample, use_clipped_model_output=clipped).prev_sample
    # waft writes pictures, from -1 to 1.
    return relative_error(load_file(out)["sample"], sample.clamp(-1, 1))


def sweep(kind: str, count: int, bound: float, draw, check) -> bool:
    """Prints a row for each configuration, and the worst; whether all are within the bound."""
    worst, failures = 0.0, 0
    for index in range(count):
        seed, config = draw(index)
        with tempfile.TemporaryDirectory() as folder:
            try:
                error, note = check(config, seed, Path(folder)), ""
            except RuntimeError as refusal:
                error, note = float("inf"), str(refusal)
        is_good = error <= bound
        failures += not is_good
        worst = max(worst, error)
        print(f"{kind} {index:3} seed {seed:6} {error:9.1e} {'ok' if is_good else 'DIFFERS'} {json.dumps(config)} {note}")
    print(f"{count} {kind}s: worst relative error {worst:.1e}, bound {bound:.0e}, {failures} above it\n", flush=True)
    return failures == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=25)
    parser.add_argument("--schedulers", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", type=Path, help="the command line of waft [default: builds xtask]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    binary = args.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "xtask"], cwd=ROOT, check=True)
        binary = ROOT / "target" / "release" / "xtask"
    digits = UNet2DModel.from_pretrained(DIGITS).eval()

    def draw_with(make):
        def draw(index: int):
            seed = 1000 * args.seed + index
            return seed, make(random.Random(seed))
        return draw

    good = sweep(
        "network", args.networks, CALL_BOUND, draw_with(network_config),
        lambda config, seed, folder: check_network(binary, config, seed, folder),
    )
    good &= sweep(
        "scheduler", args.schedulers, TRAJECTORY_BOUND, draw_with(scheduler_config),
        lambda config, seed, folder: check_scheduler(binary, digits, *config, seed, folder),
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
