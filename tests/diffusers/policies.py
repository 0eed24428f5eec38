# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors", "pyyaml"]
# ///
"""Holds waft's robot policies against PyTorch: configurations of LeRobot and diffusion_policy drawn at random from a seed.

    python tests/diffusers/policies.py [--policies 20] [--seed 0]

The networks are those of `models/reach/conditional_unet1d.py`, which rebuilds both layouts; the samplers are diffusers'. Exits
with 1 if a call differs by more than 1e-5 of the largest value, or a trajectory by more than 1e-3.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
import yaml
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "models" / "reach"), str(Path(__file__).parent)]

from conditional_unet1d import ConditionalUnet1d  # noqa: E402
from sweep import CALL_BOUND, TRAJECTORY_BOUND, relative_error, waft  # noqa: E402

EPS = 1e-8


class Policy:
    """A policy with random weights, and how it normalizes."""

    def __init__(self, draw: random.Random, layout: str):
        self.layout = layout
        levels = draw.choice([1, 2, 2, 3])
        groups = draw.choice([1, 2, 4, 8])
        self.horizon = draw.choice([4, 8, 12, 16, 20]) * (1 if levels < 3 else 2)
        self.observations = draw.choice([1, 2, 3])
        self.features = {"state": draw.randint(1, 5)}
        if layout == "lerobot" and draw.random() < 0.5:
            self.features["environment_state"] = draw.randint(1, 6)
        self.actions = draw.randint(1, 4)
        self.groups, self.scale = groups, draw.random() < 0.6
        self.step = 2 * draw.randint(2, 20)
        self.dims = [groups * draw.randint(1, 6) for _ in range(levels)]
        self.kernel = draw.choice([3, 5])
        self.modes = {kind: draw.choice(["MIN_MAX", "MEAN_STD", "IDENTITY"]) for kind in ("STATE", "ENV", "ACTION")}
        self.prediction = draw.choice(["epsilon", "sample"])
        self.scheduler = draw.choice(["DDIM", "DDPM"])
        self.steps = draw.choice([3, 5, 10])
        length = sum(self.features.values())
        self.network = ConditionalUnet1d(
            self.actions, self.observations * length, tuple(self.dims), self.kernel, groups, self.step, self.scale, layout
        ).eval()
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                if value.ndim == 1:
                    value += 0.3 * torch.randn_like(value)
        self.tensors, centers, gains = {}, [], []
        for feature, count in self.features.items():
            kind = "STATE" if feature == "state" else "ENV"
            center, gain = self.statistics(draw, f"observation_{feature}", "obs", self.modes[kind], count)
            centers.append(center)
            gains.append(gain)
        self.center, self.gain = torch.cat(centers), torch.cat(gains)
        center, gain = self.statistics(draw, "action", "action", self.modes["ACTION"], self.actions)
        self.action_center, self.action_gain = center, gain

    def statistics(self, draw, feature, short, mode, count):
        """Centers and gains of a feature, whose statistics become tensors of the checkpoint."""
        low = torch.randn(count) * draw.choice([0.1, 1, 30])
        wide = 0.2 + torch.rand(count) * draw.choice([1, 20])
        if self.layout == "diffusion_policy":
            gain = 2 / wide
            offset = -1 - low * gain
            key = f"normalizer.params_dict.{short}"
            self.tensors |= {f"{key}.scale": gain, f"{key}.offset": offset, f"{key}.input_stats.min": low}
            return -offset / gain, gain
        places = ["normalize_inputs"] if feature != "action" else ["unnormalize_outputs", "normalize_targets"]
        for place in places:
            key = f"{place}.buffer_{feature}"
            if mode == "MIN_MAX":
                self.tensors |= {f"{key}.min": low.clone(), f"{key}.max": low + wide}
            elif mode == "MEAN_STD":
                self.tensors |= {f"{key}.mean": low.clone(), f"{key}.std": wide.clone()}
        if mode == "MIN_MAX":
            return low + wide / 2, 2 / (wide + EPS)
        if mode == "MEAN_STD":
            return low, 1 / (wide + EPS)
        return torch.zeros(count), torch.ones(count)

    def config(self) -> dict:
        schedule = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": self.prediction}
        if self.layout == "diffusion_policy":
            kind = f"diffusers.schedulers.scheduling_{self.scheduler.lower()}.{self.scheduler}Scheduler"
            model = {
                "_target_": "diffusion_policy.model.diffusion.conditional_unet1d.ConditionalUnet1D",
                "input_dim": "${eval: ${action_dim} if ${obs_as_global_cond} else ${obs_dim} + ${action_dim}}",
                "down_dims": self.dims,
                "diffusion_step_embed_dim": self.step,
                "kernel_size": self.kernel,
                "n_groups": self.groups,
                "cond_predict_scale": self.scale,
            }
            policy = {
                "_target_": "diffusion_policy.policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
                "model": model,
                "noise_scheduler": {"_target_": kind, "clip_sample": True} | schedule,
                "horizon": "${horizon}",
                "obs_dim": "${obs_dim}",
                "action_dim": "${action_dim}",
                "n_obs_steps": "${n_obs_steps}",
                "n_action_steps": 8,
                "num_inference_steps": self.steps,
                "obs_as_global_cond": True,
                "obs_as_local_cond": False,
            }
            sizes = {"horizon": self.horizon, "obs_dim": sum(self.features.values()), "action_dim": self.actions}
            return sizes | {"n_obs_steps": self.observations, "policy": policy, "training": {"num_epochs": 5000}}
        inputs = {
            f"observation.{name}": {"type": "STATE" if name == "state" else "ENV", "shape": [count]}
            for name, count in self.features.items()
        }
        return schedule | {
            "type": "diffusion",
            "n_obs_steps": self.observations,
            "horizon": self.horizon,
            "n_action_steps": 8,
            "normalization_mapping": self.modes,
            "input_features": inputs,
            "output_features": {"action": {"type": "ACTION", "shape": [self.actions]}},
            "down_dims": self.dims,
            "kernel_size": self.kernel,
            "n_groups": self.groups,
            "diffusion_step_embed_dim": self.step,
            "use_film_scale_modulation": self.scale,
            "noise_scheduler_type": self.scheduler,
            "num_inference_steps": self.steps,
            "vision_backbone": "resnet18",
            "device": "cpu",
        }

    def save(self, folder: Path, pickled: bool) -> None:
        prefix = "model" if self.layout == "diffusion_policy" else "diffusion.unet"
        tensors = {f"{prefix}.{name}": value for name, value in self.network.state_dict().items()} | self.tensors
        tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
        if self.layout == "diffusion_policy":
            (folder / ".hydra").mkdir()
            (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(self.config()))
        else:
            (folder / "config.json").write_text(json.dumps(self.config()))
        if pickled:
            torch.save({"state_dicts": {"model": {}, "ema_model": tensors}}, folder / "latest.ckpt")
        else:
            save_file(tensors, folder / "model.safetensors")

    def observe(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Observations in their own units, and as the network takes them."""
        center, gain = self.center.repeat(self.observations), self.gain.repeat(self.observations)
        normalized = 2 * torch.rand(count, len(center)) - 1
        raw = center + normalized / gain
        return raw, (raw - center) * gain


def call(policy: Policy, binary: Path, folder: Path, scratch: Path) -> float:
    """Error of single calls of the network."""
    count = 2
    sample = torch.randn(count, policy.horizon, policy.actions)
    timestep = torch.randint(100, (count,))
    _, observed = policy.observe(count)
    with torch.no_grad():
        expected = policy.network(sample, timestep, observed)
    transposed = policy.horizon != policy.actions and random.random() < 0.5
    given = sample.transpose(1, 2).contiguous() if transposed or policy.horizon == policy.actions else sample
    save_file({"sample": given, "timestep": timestep, "global_cond": observed}, scratch / "in.safetensors")
    waft(binary, "predict", folder, "--input", scratch / "in.safetensors", "--out", scratch / "out.safetensors")
    found = load_file(scratch / "out.safetensors")["out"]
    if given.shape != sample.shape or policy.horizon == policy.actions:
        found = found.transpose(1, 2)
    return relative_error(found, expected)


def diffused(policy: Policy, observed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Initial noise, noise of the steps, and the actions that diffusers' scheduler makes of them."""
    kind = {"DDIM": DDIMScheduler, "DDPM": DDPMScheduler}[policy.scheduler]
    scheduler = kind(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type=policy.prediction)
    scheduler.set_timesteps(policy.steps)
    count = len(observed)
    start = torch.randn(count, policy.horizon, policy.actions)
    noise = torch.randn(policy.steps, count, policy.horizon, policy.actions)
    sample = start
    place = f"{kind.__module__}.randn_tensor"
    with torch.no_grad():
        for index, timestep in enumerate(scheduler.timesteps):
            output = policy.network(sample, timestep.expand(count), observed)
            with mock.patch(place, lambda *args, **kwargs: noise[index]):
                sample = scheduler.step(output, timestep, sample).prev_sample
    return start, noise, sample / policy.action_gain + policy.action_center


def trajectory(policy: Policy, binary: Path, folder: Path) -> float:
    """Error of actions."""
    count = 2
    # Random networks are chaotic: small outputs keep the comparison about the sampler.
    with torch.no_grad():
        policy.network.final_conv[1].weight *= 0.02
        policy.network.final_conv[1].bias *= 0.02
    inner = folder / "small"
    inner.mkdir()
    policy.save(inner, False)
    raw, observed = policy.observe(count)
    start, noise, expected = diffused(policy, observed)
    chw = lambda values: values.transpose(-1, -2).unsqueeze(-2).contiguous()
    save_file({"latents": chw(start)}, folder / "latents.safetensors")
    save_file({"noise": chw(noise)}, folder / "noise.safetensors")
    save_file({"observation": raw}, folder / "observation.safetensors")
    waft(binary, "export-weights", inner, "--out", folder / "policy.waft", "--precision", "f32")
    given = ["--latents", folder / "latents.safetensors", "--observation", folder / "observation.safetensors"]
    if policy.scheduler == "DDPM":
        given += ["--noise", folder / "noise.safetensors"]
    waft(binary, "sample", "--model", folder / "policy.waft", *given, "--out", folder / "actions.safetensors")
    return relative_error(load_file(folder / "actions.safetensors")["actions"], expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "waft")
    args = parser.parse_args()
    torch.set_num_threads(1)
    failures, worst = 0, [0.0, 0.0]
    for index in range(args.policies):
        seed = args.seed * 100_000 + index
        torch.manual_seed(seed)
        random.seed(seed)
        draw = random.Random(seed)
        policy = Policy(draw, draw.choice(["lerobot", "diffusion_policy"]))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "policy"
            folder.mkdir()
            policy.save(folder, draw.random() < 0.4)
            try:
                errors = [call(policy, args.binary, folder, Path(scratch)), trajectory(policy, args.binary, Path(scratch))]
            except RuntimeError as error:
                print(f"{seed}: {policy.layout}: {error}")
                failures += 1
                continue
        worst = [max(pair) for pair in zip(worst, errors)]
        if errors[0] > CALL_BOUND or errors[1] > TRAJECTORY_BOUND:
            print(f"{seed}: {policy.layout}: call {errors[0]:.2e}, trajectory {errors[1]:.2e}: {policy.config()}")
            failures += 1
    print(f"{args.policies} policies, worst call {worst[0]:.1e}, worst trajectory {worst[1]:.1e}, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
