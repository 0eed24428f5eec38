# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36"]
# ///
"""Writes guidance.json with diffusers, for tests/tests/suite/guidance.rs: digits drawn with diffusers' own ClassifierFreeGuidance, in an
interval of the steps, rescaled, and with a scale for each step.

    python tests/goldens/guidance.py
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.guiders import ClassifierFreeGuidance
from original import DIGITS, gaussian

HERE = Path(__file__).parent
STEPS, NO_CLASS = 10, 10


@torch.no_grad()
def draw(model, scales: list, start: float, stop: float, rescale: float) -> dict:
    scheduler = DDIMScheduler.from_pretrained(DIGITS)
    scheduler.set_timesteps(STEPS)
    guiders = [
        ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale, start=start, stop=stop) for scale in scales
    ]
    sample = gaussian(1000)
    calls = 0
    for index, t in enumerate(scheduler.timesteps):
        guider = guiders[index % len(guiders)]
        guider.set_state(step=index, num_inference_steps=STEPS, timestep=t)
        conditional = model(sample, t, class_labels=torch.tensor([7])).sample
        unconditional = None
        calls += guider.num_conditions
        if guider.num_conditions == 2:
            unconditional = model(sample, t, class_labels=torch.tensor([NO_CLASS])).sample
        output = guider.forward(conditional, unconditional).pred
        sample = scheduler.step(output, t, sample, use_clipped_model_output=True).prev_sample
    return {
        "scales": scales, "start": start, "stop": stop, "rescale": rescale, "calls": calls,
        "sample": [float(f"{v:.9g}") for v in sample.flatten().tolist()],
    }


def write() -> None:
    model = UNet2DModel.from_pretrained(DIGITS).eval()
    rows = [
        draw(model, [3.0], 0.0, 1.0, 0.0),
        draw(model, [3.0], 0.2, 0.8, 0.0),
        draw(model, [3.0], 0.35, 0.55, 0.0),
        draw(model, [3.0], 0.0, 1.0, 0.7),
        draw(model, [7.5], 0.0, 1.0, 1.0),
        draw(model, [7.5], 0.25, 1.0, 0.5),
        draw(model, [0.5 * step for step in range(STEPS)], 0.0, 1.0, 0.0),
        draw(model, [4.0 - 0.5 * step for step in range(STEPS)], 0.1, 0.9, 0.7),
    ]
    (HERE / "guidance.json").write_text(json.dumps(rows, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
