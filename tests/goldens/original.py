# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy"]
# ///
"""Writes original.json and resample.json with diffusers, for tests/tests/suite/original.rs: image-to-image, inpainting and RePaint's
resampling with the digits.

    python tests/goldens/original.py

The loops are those of StableDiffusionImg2ImgPipeline and of StableDiffusionInpaintPipeline for a network of four input
channels, without the autoencoder and the text. Pictures, noise and masks come from `number`, which the test has as well.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import diffusers
import torch
from schedule import number

HERE = Path(__file__).parent
DIGITS = HERE.parent.parent / "models" / "digits" / "checkpoint"
LEN = 64


def gaussian(start: int) -> torch.Tensor:
    """Not quite, but of its size: sums of three numbers between -1 and 1."""
    values = [sum(number(3 * (start + i) + k) for k in range(3)) for i in range(LEN)]
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 8, 8)


def path(steps: int, jump: int, times: int) -> list[int]:
    """RePaintScheduler's timesteps as numbers of steps that are left, less 1; they rise where noise is added."""
    scheduler = diffusers.RePaintScheduler(num_train_timesteps=steps)
    scheduler.set_timesteps(steps, jump_length=jump, jump_n_sample=times)
    return scheduler.timesteps.tolist()


@torch.no_grad()
def resample(model, config: dict, steps: int, jump: int, times: int) -> dict:
    """RePaint's order of steps with the network calls of DDIM, whose way back is taken at once: diffusers takes its single steps,
    which are distributed in the same way. What is kept has the same noise each time, as in the inpainting pipeline."""
    scheduler = diffusers.DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    bytes_ = [int((number(100 + i) + 1) * 127.99) for i in range(LEN)]
    image = torch.tensor(bytes_, dtype=torch.float32).reshape(1, 1, 8, 8) / 255 * 2 - 1
    mask = torch.tensor([255 * (i % 8 >= 4) for i in range(LEN)]).reshape(1, 1, 8, 8)
    repaint = (mask >= 128).float()
    noise = sample = gaussian(1000)
    alpha = [scheduler.alphas_cumprod[t].item() for t in scheduler.timesteps] + [1.0]
    order, taken, jumps, before = path(steps, jump, times), [], 0, steps
    for position, left in enumerate(order):
        if left < before:
            at = steps - 1 - left
            taken.append(at)
            t = scheduler.timesteps[at]
            output = model(sample, t, class_labels=torch.tensor([7])).sample
            sample = scheduler.step(output, t, sample, use_clipped_model_output=False).prev_sample
            is_last = at == steps - 1
            kept = image if is_last else scheduler.add_noise(image, noise, scheduler.timesteps[at + 1 : at + 2])
            sample = (1 - repaint) * kept + repaint * sample
        elif order[position - 1] < order[position - 2] if position > 1 else True:
            # The first of `jump` steps upwards.
            at = steps - 1 - order[position - 1] + 1
            ratio = alpha[at - jump] / alpha[at]
            sample = ratio**0.5 * sample + (1 - ratio) ** 0.5 * gaussian(2000 + LEN * jumps)
            jumps += 1
        before = left
    return {
        "config": json.dumps(config), "steps": steps, "resample": [jump, times], "taken": taken, "jumps": jumps,
        "image": bytes_, "mask": mask.flatten().tolist(),
        "sample": [float(f"{v:.9g}") for v in sample.flatten().tolist()],
    }


@torch.no_grad()
def draw(model, config: dict, steps: int, strength: float, masked: bool) -> dict:
    cls = getattr(diffusers, config["_class_name"])
    scheduler, module = cls.from_config(config), sys.modules[cls.__module__]
    scheduler.set_timesteps(steps)
    # The pipelines' get_timesteps.
    taken = min(int(steps * strength), steps)
    first = max(steps - taken, 0) * scheduler.order
    timesteps = scheduler.timesteps[first:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    bytes_ = [int((number(100 + i) + 1) * 127.99) for i in range(LEN)]
    image = torch.tensor(bytes_, dtype=torch.float32).reshape(1, 1, 8, 8) / 255 * 2 - 1
    mask = torch.tensor([255 * (i % 8 >= 4) for i in range(LEN)]).reshape(1, 1, 8, 8)
    repaint = (mask >= 128).float()
    noise = gaussian(1000)
    if masked and strength == 1.0:
        sample = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        sample = scheduler.add_noise(image, noise, timesteps[:1])
    for index, t in enumerate(timesteps):
        scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
        output = model(scale(sample, t), t, class_labels=torch.tensor([7])).sample
        given = gaussian(2000 + LEN * (first + index))
        with mock.patch.object(module, "randn_tensor", lambda *_, **__: given, create=True):
            sample = scheduler.step(output, t, sample).prev_sample.float()
        if masked:
            kept = image
            if index < len(timesteps) - 1:
                kept = scheduler.add_noise(image, noise, timesteps[index + 1 : index + 2])
            sample = (1 - repaint) * kept + repaint * sample
    return {
        "config": json.dumps(config), "steps": steps, "strength": strength, "first": first, "calls": len(scheduler.timesteps),
        "image": bytes_, "mask": mask.flatten().tolist() if masked else None,
        "sample": [float(f"{v:.9g}") for v in sample.flatten().tolist()],
    }


def write() -> None:
    model = diffusers.UNet2DModel.from_pretrained(DIGITS).eval()
    own = json.loads((DIGITS / "scheduler_config.json").read_text())
    linear = {"beta_schedule": "linear", "timestep_spacing": "trailing"}
    configs = (
        own,
        linear | {"_class_name": "DDPMScheduler"},
        linear | {"_class_name": "DPMSolverMultistepScheduler"},
        linear | {"_class_name": "EulerDiscreteScheduler"},
        linear | {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "leading"},
        linear | {"_class_name": "HeunDiscreteScheduler"},
    )
    rows = []
    for config in configs:
        for steps, strength, masked in ((10, 0.6, False), (10, 0.35, False), (8, 1.0, False), (10, 1.0, True), (8, 0.75, True)):
            # diffusers' inpainting loop steps over Heun's two calls.
            if not (masked and config["_class_name"].startswith("Heun")):
                rows.append(draw(model, config, steps, strength, masked))
    resampled = [resample(model, own, *how) for how in ((10, 2, 3), (10, 5, 2), (12, 4, 2), (9, 2, 2), (6, 1, 2), (5, 5, 3))]
    for name, value in (("original", rows), ("resample", resampled)):
        (HERE / f"{name}.json").write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
