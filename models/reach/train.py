# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Trains the policy `reach` and saves it in LeRobot's layout.

Data: demonstrations of the scripted planner in `world.py`, disturbed at random, and some started off its way, so that the policy
has seen how to come back. A sample is two observations (how far the goal is, and the disc's centre, along axes
of which the first points from the robot to the goal) and sixteen positions along the same axes, the first of which is the one
before; each time it is used it is mirrored or not.
Network: the conditional U-Net of diffusion policies, channels (24, 48), kernel 5. Noise: the cosine schedule over 100 timesteps,
epsilon prediction. The saved weights are the exponential moving average.

    python models/reach/train.py                 # about forty minutes on one core
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from conditional_unet1d import ConditionalUnet1d
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from world import RADIUS, episode, frame, move, plan, seen, side_of

HORIZON = 16
OBSERVATIONS = 2
# How near to the disc's centre a demonstration may begin.
NEAR = RADIUS + 0.02
# What observations and positions are divided by.
FARTHEST = 1.5
REACH = 1.0


def demonstrations(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Observations (n, 2, 3) and trajectories (n, 16, 2), along the robot's axes, of `count` episodes."""
    observations, trajectories = [], []
    for _ in range(count):
        position, goal, centre = episode(random)
        if random.random() < 0.3:
            # Somewhere on the way, off the planner's: nearer to the disc, or round the other side.
            position = random.uniform(-1, 1, 2)
            while np.linalg.norm(position - centre) < NEAR:
                position = random.uniform(-1, 1, 2)
        before = last = position
        for _ in range(60):
            future, at = [last], position
            for _ in range(HORIZON - 1):
                at = move(at, plan(at, goal, centre, side_of(at, goal, centre)))
                future.append(at)
            observations.append([seen(before, goal, centre), seen(position, goal, centre)])
            trajectories.append((np.array(future) - position) @ frame(position, goal).T)
            if np.linalg.norm(position - goal) < 0.01 and random.random() < 0.3:
                break
            disturbance = random.normal(0, 0.04, 2) if random.random() < 0.3 else np.zeros(2)
            last = future[1]
            before, position = position, last + disturbance
            # A disturbance into the disc is none: the planner starts outside of it.
            if np.linalg.norm(position - centre) < NEAR:
                position = last
    return np.array(observations, dtype=np.float32), np.array(trajectories, dtype=np.float32)


def configuration() -> dict:
    return {
        "type": "diffusion",
        "n_obs_steps": OBSERVATIONS,
        "horizon": HORIZON,
        "n_action_steps": 8,
        "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"},
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [1]},
            "observation.environment_state": {"type": "ENV", "shape": [2]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "down_dims": [24, 48],
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": 32,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDIM",
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": 10,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    observed, wanted = demonstrations(args.episodes, np.random.default_rng(args.seed))
    print(f"{len(observed)} samples of {args.episodes} demonstrations", flush=True)
    observations, trajectories = torch.tensor(observed) / FARTHEST, torch.tensor(wanted) / REACH

    config = configuration()
    model = ConditionalUnet1d(
        action_dim=2,
        global_cond_dim=observations[0].numel(),
        down_dims=tuple(config["down_dims"]),
        kernel_size=config["kernel_size"],
        n_groups=config["n_groups"],
        step_embed_dim=config["diffusion_step_embed_dim"],
    )
    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=1e-6)

    def rate(step: int) -> float:
        warmup = min(1.0, (step + 1) / 200)
        return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    started = time.time()
    running = 0.0
    for step in range(args.steps):
        pick = torch.randint(len(observations), (args.batch,))
        # What is left may be right as well.
        side = torch.randint(2, (args.batch, 1, 1)) * 2.0 - 1
        observed = (observations[pick] * torch.cat([torch.ones_like(side), torch.ones_like(side), side], 2)).flatten(1)
        clean = trajectories[pick] * torch.cat([torch.ones_like(side), side], 2)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(100, (args.batch,))
        predicted = model(scheduler.add_noise(clean, noise, timesteps), timesteps, observed)
        loss = torch.nn.functional.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.9995, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        running += (loss.item() - running) * max(0.01, 1 / (step + 1))
        if (step + 1) % 200 == 0:
            speed = (step + 1) / (time.time() - started)
            print(f"step {step + 1}/{args.steps}  loss {running:.4f}  {speed:.1f} steps/s", flush=True)

    tensors = {f"diffusion.unet.{name}": value for name, value in average.items()}
    for name, length, end in [
        ("normalize_inputs.buffer_observation_state", 1, FARTHEST),
        ("normalize_inputs.buffer_observation_environment_state", 2, FARTHEST),
        ("normalize_targets.buffer_action", 2, REACH),
        ("unnormalize_outputs.buffer_action", 2, REACH),
    ]:
        tensors |= {f"{name}.min": torch.full((length,), -end), f"{name}.max": torch.full((length,), end)}
    args.out.mkdir(exist_ok=True)
    save_file(tensors, args.out / "model.safetensors")
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # What calibration acts on: of demonstrations that the policy has not seen.
    others, _ = demonstrations(40, np.random.default_rng(args.seed + 1))
    pick = np.random.default_rng(args.seed + 2).choice(len(others), 64, replace=False)
    save_file({"observation": torch.tensor(others[pick]).flatten(1)}, args.out.parent / "observations.safetensors")
    defaults = {
        "name": "reach",
        "steps": [10],
        "provenance": "waft models/reach/train.py on demonstrations of its planner; MIT OR Apache-2.0",
    }
    (args.out / "waft.json").write_text(json.dumps(defaults, indent=2) + "\n")
    print(f"saved {sum(p.numel() for p in model.parameters())} parameters to {args.out}")


if __name__ == "__main__":
    main()
