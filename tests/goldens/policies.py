# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors", "pyyaml"]
# ///
"""Writes small robot policies of both layouts, and what PyTorch makes of them.

    python tests/goldens/policies.py
"""

import random
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "diffusers"))

from policies import Policy, diffused  # noqa: E402


def write(name: str, layout: str, seed: int) -> None:
    torch.manual_seed(seed)
    policy = Policy(random.Random(seed), layout)
    with torch.no_grad():
        policy.network.final_conv[1].weight *= 0.02
        policy.network.final_conv[1].bias *= 0.02
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    policy.save(folder, layout == "diffusion_policy")
    count = 3
    sample = torch.randn(count, policy.horizon, policy.actions)
    timestep = torch.tensor([0, 41, 99])
    observation, observed = policy.observe(count)
    with torch.no_grad():
        out = policy.network(sample, timestep, observed)
    start, noise, actions = diffused(policy, observed)
    tensors = {
        "sample": sample,
        "timestep": timestep,
        "global_cond": observed,
        "out": out,
        "observation": observation,
        "latents": start,
        "noise": noise,
        "actions": actions,
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, FOLDER / f"{name}.safetensors")
    parameters = sum(value.numel() for value in policy.network.parameters())
    print(f"{name}: {parameters} parameters, {policy.scheduler}, {policy.dims}, scale {policy.scale}, {policy.modes}")


if __name__ == "__main__":
    write("lerobot", "lerobot", 7)
    write("diffusion_policy", "diffusion_policy", 22)
