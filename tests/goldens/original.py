# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy"]
# ///
"""Writes original.json with diffusers, for tests/tests/original.rs: image-to-image and inpainting with the digits.

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
    (HERE / "original.json").write_text(json.dumps(rows, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
