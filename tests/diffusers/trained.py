# /// script
# requires-python = ">=3.10"
# dependencies = [
#     "torch==2.15.0", "diffusers==0.42.1", "denoising-diffusion-pytorch==2.3.4", "numpy", "safetensors==0.8.0", "scikit-learn",
# ]
# ///
"""Trains a small network of each layout on scikit-learn's 1,797 digits, and holds its calls in i8 against PyTorch's.

    venv/bin/python tests/diffusers/trained.py --waft target/release/waft

A row for each: the median and least peak signal-to-noise ratio (peak 2) of 96 calls on noised digits, at several noise levels; it
exits with 1 if a median is below 30 dB. A training takes half a minute to two on one idle core, `--folder` keeps them.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

GOLDENS = Path(__file__).parents[1] / "goldens"
sys.path.insert(0, str(GOLDENS))
import denoising_diffusion  # noqa: E402
import edm  # noqa: E402
import guided_diffusion  # noqa: E402
import make  # noqa: E402

CALLS = 96
# Those of EDM's three steps (Karras et al., 2022, equation 5).
LEVELS = [(80 ** (1 / 7) + i / 2 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(3)]


class Layout:
    """A network that predicts the noise in the steps of diffusers' schedule, and how it is saved and exported."""

    def __init__(self, name: str, network: torch.nn.Module, save, options=(), classes: bool = True):
        self.name, self.network, self.save = name, network, save
        self.options, self.classes = options, classes

    def call(self, sample, timestep, labels):
        out = self.network(sample, timestep, *[labels] if self.classes else [])
        return out[:, : sample.shape[1]]

    def noised(self, pictures, generator):
        """Samples, their timesteps, and what the network shall say."""
        noise = torch.randn(pictures.shape, generator=generator)
        return self.at(pictures, noise, torch.randint(1000, (len(pictures),), generator=generator))

    def at(self, pictures, noise, timestep):
        return SCHEDULER.add_noise(pictures, noise, timestep), timestep, noise


class Edm(Layout):
    """Karras et al., 2022, table 1: sigma_data 0.5, the logarithm of noise normal about -1.2."""

    def call(self, sample, timestep, labels):
        return self.network.model(sample, timestep.float(), self.network.one_hot(labels))

    def noised(self, pictures, generator):
        sigma = (1.2 * torch.randn(len(pictures), generator=generator) - 1.2).exp()
        return self.at(pictures, torch.randn(pictures.shape, generator=generator), sigma)

    def at(self, pictures, noise, sigma):
        level, data = sigma[:, None, None, None], 0.5
        sample = pictures + level * noise
        total = level**2 + data**2
        target = (pictures - sample * data**2 / total) / (level * data / total.sqrt())
        return sample / total.sqrt(), sigma.log() / 4, target


def layouts() -> list[Layout]:
    torch.manual_seed(1)

    # Each returns what `export-weights` takes.
    def course(network, folder):
        torch.save(network.state_dict(), folder / "mnist.pt")
        (folder / "config.json").write_text(json.dumps({"sample_size": 8, "norm_num_groups": 4}))
        SCHEDULER.save_config(folder)
        return folder

    def snapshot(network, folder):
        edm.save(network, folder / "network-snapshot-000001.pkl")
        return folder / "network-snapshot-000001.pkl"

    def lucidrains(network, folder):
        denoising_diffusion.save(folder, network, [8, 8], "pred_noise", {}, timesteps=1000)
        return folder

    def guided(network, folder):
        torch.save(network.state_dict(), folder / "model.pt")
        config = {"_class_name": "guided_diffusion.UNetModel", "image_size": 8, "num_head_channels": 8}
        (folder / "config.json").write_text(json.dumps(config | {"use_new_attention_order": False, "learn_sigma": False}))
        return folder

    structure = guided_diffusion.MODELS["guided_diffusion"][0] | {"outputs": 1, "classes": 10}
    levels = ["--steps", "3"]
    small = {"channels": 1, "classes": 10, "width": 16, "label_dropout": 0}
    return [
        Layout("the course's ClassConditionedUnet", make.ClassConditionedUnet(10, 4), course),
        Layout(
            "lucidrains", denoising_diffusion.Unet(16, dim_mults=(1, 2), channels=1, attn_heads=2, attn_dim_head=8), lucidrains,
            classes=False,
        ),
        Layout("guided-diffusion", guided_diffusion.UNetModel(**structure), guided),
        Edm("EDM NCSN++", edm.EDMPrecond(edm.NCSNPP | small, 0.5), snapshot, levels),
        Edm("EDM DDPM++", edm.EDMPrecond(edm.DDPMPP | small | {"mults": [1, 2], "attends": [1]}, 0.5), snapshot, levels),
        Edm("EDM ADM", edm.EDMPrecond(edm.ADM | small, 0.5), snapshot, levels),
    ]


SCHEDULER = DDPMScheduler(beta_schedule="linear")


def train(layout: Layout, pictures: torch.Tensor, labels: torch.Tensor, steps: int) -> float:
    """The mean loss of the last tenth."""
    generator, losses, begin = torch.Generator().manual_seed(2), [], time.monotonic()
    optimizer = torch.optim.Adam(layout.network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(pictures), (64,), generator=generator)
        sample, timestep, target = layout.noised(pictures[chosen], generator)
        loss = F.mse_loss(layout.call(sample, timestep, labels[chosen]), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layout.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            left = (time.monotonic() - begin) / (step + 1) * (steps - step - 1)
            print(f"\r{layout.name}: {step + 1}/{steps}, loss {sum(losses[-50:]) / 50:.3f}, {left:.0f} s left ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return sum(losses[-steps // 10 :]) / (steps // 10)


@torch.no_grad()
def measure(layout: Layout, pictures: torch.Tensor, labels: torch.Tensor, folder: Path, waft: Path) -> torch.Tensor:
    """Decibels of each call."""
    layout.network.eval()
    source, generator = folder / "checkpoint", torch.Generator().manual_seed(3)
    source.mkdir(exist_ok=True)
    source = layout.save(layout.network, source)
    model = folder / "model.waft"
    subprocess.run([waft, "export-weights", source, "--out", model, *layout.options], check=True, capture_output=True)
    pictures, labels = pictures[:CALLS], labels[:CALLS]
    if isinstance(layout, Edm):
        levels = torch.tensor(LEVELS)
    else:
        listed = json.loads(subprocess.run([waft, "inspect", model, "--json"], check=True, capture_output=True).stdout)
        levels = torch.tensor(listed["timesteps"][0])
    noise = torch.randn(pictures.shape, generator=generator)
    sample, timestep, _ = layout.at(pictures, noise, levels.repeat(CALLS)[:CALLS])
    reference = layout.call(sample, timestep, labels)
    inputs = {"sample": sample.contiguous(), "timestep": timestep.round().long()} | ({"class_labels": labels} if layout.classes else {})
    save_file(inputs, folder / "in.safetensors")
    command = [waft, "predict", model, "--input", folder / "in.safetensors", "--out", folder / "out.safetensors"]
    subprocess.run(command, check=True, capture_output=True)
    errors = (load_file(folder / "out.safetensors")["out"] - reference).square().mean((1, 2, 3))
    return 10 * (4 / errors).log10()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waft", default="waft", type=Path)
    parser.add_argument("--steps", default=600, type=int)
    parser.add_argument("--folder", type=Path, help="keeps each network's checkpoint and .waft file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    worst = math.inf
    for layout in layouts():
        with tempfile.TemporaryDirectory() as folder:
            folder = args.folder / layout.name.replace(" ", "-") if args.folder else Path(folder)
            folder.mkdir(parents=True, exist_ok=True)
            loss = train(layout, pictures[CALLS:], labels[CALLS:], args.steps)
            decibels = measure(layout, pictures, labels, folder, args.waft)
        parameters = sum(p.numel() for p in layout.network.parameters())
        median, least = decibels.median().item(), decibels.min().item()
        print(f"{layout.name}: {parameters} parameters, loss {loss:.3f}: median {median:.1f} dB, least {least:.1f} dB", flush=True)
        worst = min(worst, median)
    sys.exit(not worst >= 30)


if __name__ == "__main__":
    main()
