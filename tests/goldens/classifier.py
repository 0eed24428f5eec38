# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Writes classifier.safetensors: what PyTorch's automatic differentiation and diffusers' own DDIM make of the digits and their
classifier, in f32 on one thread.

    python tests/goldens/classifier.py

`sample` are ten noisy pictures, one for each of the ten steps, `gradient` is that of log p(label | sample) of each, and `logits` what
the classifier says; `latents` are four pictures' noise and `drawn conditional S`, `drawn unconditional S` what ten steps make of it,
guided with scale S, the network told the class or none.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
DIGITS = HERE.parent.parent / "models" / "digits"
sys.path.insert(0, str(DIGITS))
import train_classifier  # noqa: E402

STEPS = 10
NO_CLASS = 10


def gradient(classifier, sample, timesteps, labels):
    """That of the labels' log-probabilities with respect to the sample."""
    with torch.enable_grad():
        sample = sample.detach().requires_grad_(True)
        chosen = torch.log_softmax(classifier(sample, timesteps), 1)[range(len(sample)), labels]
        return torch.autograd.grad(chosen.sum(), sample)[0]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(16)
    classifier = train_classifier.load(DIGITS / "guide")
    network = UNet2DModel.from_pretrained(DIGITS / "checkpoint").eval()
    scheduler = DDIMScheduler.from_pretrained(DIGITS / "checkpoint")
    clipped = json.loads((DIGITS / "checkpoint" / "waft.json").read_text())["use_clipped_model_output"]
    scheduler.set_timesteps(STEPS)
    timesteps = scheduler.timesteps
    golden = {"timesteps": timesteps, "labels": torch.arange(STEPS) % 10}
    golden["sample"] = torch.randn(STEPS, 1, 8, 8)
    golden["gradient"] = gradient(classifier, golden["sample"], timesteps, golden["labels"])
    with torch.no_grad():
        golden["logits"] = classifier(golden["sample"], timesteps)
    latents = torch.randn(4, 1, 8, 8)
    classes = torch.tensor([3, 7, 0, 8])
    golden |= {"latents": latents, "classes": classes}
    for kind in ["conditional", "unconditional"]:
        told = classes if kind == "conditional" else torch.full_like(classes, NO_CLASS)
        for scale in [0.0, 1.0, 4.0]:
            sample = latents.clone()
            for timestep in timesteps:
                with torch.no_grad():
                    noise = network(sample, timestep, class_labels=told).sample
                towards = gradient(classifier, sample, timestep.expand(len(sample)), classes)
                # Dhariwal and Nichol, algorithm 2.
                noise = noise - scale * (1 - scheduler.alphas_cumprod[timestep]).sqrt() * towards
                sample = scheduler.step(noise, timestep, sample, use_clipped_model_output=clipped).prev_sample
            golden[f"drawn {kind} {scale:.0f}"] = sample
    save_file({name: value.contiguous() for name, value in golden.items()}, HERE / "classifier.safetensors")


if __name__ == "__main__":
    main()
