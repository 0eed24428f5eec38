# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36"]
# ///
"""Writes thresholding.json with diffusers, for tests/tests/suite/thresholding.rs: digits drawn with dynamic thresholding.

    python tests/goldens/thresholding.py
"""

import json
from pathlib import Path

import torch
from diffusers import UNet2DModel
from original import DIGITS, gaussian
from schedulers import SCHEDULERS

HERE = Path(__file__).parent
NO_CLASS = 10


@torch.no_grad()
def draw(model, solver: str, fields: dict, steps: int, guidance: float) -> dict:
    saved = SCHEDULERS[solver].load_config(DIGITS)
    config = {**saved, "_class_name": SCHEDULERS[solver].__name__, "thresholding": True, **fields}
    scheduler = SCHEDULERS[solver].from_config(config)
    scheduler.set_timesteps(steps)
    sample = gaussian(1000)
    for t in scheduler.timesteps:
        output = model(sample, t, class_labels=torch.tensor([7])).sample
        if guidance != 1:
            unconditional = model(sample, t, class_labels=torch.tensor([NO_CLASS])).sample
            output = unconditional + guidance * (output - unconditional)
        sample = scheduler.step(output, t, sample).prev_sample
    return {
        "solver": solver, "fields": fields, "steps": steps, "guidance": guidance,
        "sample": [float(f"{v:.9g}") for v in sample.flatten().tolist()],
    }


def write() -> None:
    model = UNet2DModel.from_pretrained(DIGITS).eval()
    rows = [
        draw(model, "ddim", {"sample_max_value": 2.0}, 10, 1.0),
        draw(model, "ddim", {"sample_max_value": None, "dynamic_thresholding_ratio": 0.9}, 50, 1.0),
        draw(model, "ddim", {"sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.95}, 10, 5.0),
        draw(model, "dpm-solver++", {"sample_max_value": 3.0, "dynamic_thresholding_ratio": 0.8}, 10, 1.0),
        draw(model, "dpm-solver++", {"sample_max_value": 100.0, "dynamic_thresholding_ratio": 0.99}, 50, 3.0),
        draw(model, "unipc", {"sample_max_value": 4.0}, 10, 4.0),
        draw(model, "unipc", {"sample_max_value": 0.8}, 10, 1.0),
    ]
    (HERE / "thresholding.json").write_text(json.dumps(rows, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
