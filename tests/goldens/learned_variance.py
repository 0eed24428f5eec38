# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Writes learned_variance.json and learned_variance.safetensors with diffusers' DDPMScheduler of variance_type "learned_range", for
tests/tests/suite/learned_variance.rs: steps from numbers in double precision, and pictures of the network `conditioned/`.

    python tests/goldens/learned_variance.py
"""

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from schedule import ELEMENTS, in_double, numbers
from schedulers import run

HERE = Path(__file__).parent
# The last two end before timestep 0, so that their last step has noise too.
PICTURES = (
    ({}, 10),
    ({"beta_schedule": "squaredcos_cap_v2", "clip_sample": False}, 20),
    ({"timestep_spacing": "trailing", "prediction_type": "v_prediction"}, 8),
    ({"timestep_spacing": "trailing", "beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 2.0}, 5),
)
STEPS = PICTURES + (
    ({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100}, 100),
    ({"timestep_spacing": "linspace", "num_train_timesteps": 50}, 50),
    ({"thresholding": True, "sample_max_value": 1.5}, 7),
    ({}, [999, 500, 20, 0]),
    ({}, [980, 3]),
)


def scheduler_of(fields: dict, steps: int | list[int]) -> DDPMScheduler:
    scheduler = DDPMScheduler(variance_type="learned_range", **fields)
    if isinstance(steps, int):
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=steps)
    return scheduler


def trajectory(fields: dict, steps: int | list[int]) -> dict:
    """The sample after each step, for outputs and variances from `number`."""
    scheduler, samples = scheduler_of(fields, steps), []

    def predict(index: int, sample: torch.Tensor, _) -> torch.Tensor:
        samples.append(sample)
        return torch.cat((numbers(ELEMENTS * (1 + 2 * index)), numbers(10_000 + ELEMENTS * index)), 1)

    with in_double(scheduler):
        last = run(scheduler, 1.5 * numbers(0), predict, lambda index: numbers(ELEMENTS * (2 + 2 * index)), {})
    return {
        "solver": "ddpm", "config": json.dumps({"variance_type": "learned_range", **fields}), "steps": steps,
        "timesteps": scheduler.timesteps.tolist(),
        "samples": [[float(f"{v:.12g}") for v in sample.flatten().tolist()] for sample in [*samples[1:], last]],
    }


@torch.no_grad()
def pictures(model, given: dict, fields: dict, steps: int, generator: torch.Generator) -> dict:
    scheduler = scheduler_of(fields, steps)
    noise = torch.randn((steps, *given["latents"].shape), generator=generator)
    predict = lambda _, sample, t: model(torch.cat((sample, given["condition"]), 1), t).sample
    drawn = run(scheduler, given["latents"], predict, lambda index: noise[index], {})
    return {"noise": noise, "drawn": drawn.contiguous()}


def write() -> None:
    rows = [trajectory(fields, steps) for fields, steps in STEPS]
    model = UNet2DModel.from_pretrained(HERE / "conditioned").eval()
    given = load_file(HERE / "conditioned_trajectories.safetensors")
    generator, tensors, drawn = torch.Generator().manual_seed(90), {}, []
    for index, (fields, steps) in enumerate(PICTURES):
        found = pictures(model, given, fields, steps, generator)
        tensors |= {f"{name} {index}": tensor for name, tensor in found.items()}
        drawn.append({"fields": fields, "steps": steps})
    save_file(tensors, HERE / "learned_variance.safetensors")
    text = json.dumps({"steps": rows, "pictures": drawn}, separators=(",", ":"), allow_nan=False)
    (HERE / "learned_variance.json").write_text(text + "\n")


if __name__ == "__main__":
    write()
