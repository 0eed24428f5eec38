# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy"]
# ///
"""Writes schedule_timesteps.json and schedule_steps.json with diffusers' schedulers, for tests/tests/schedule.rs.

    python tests/goldens/schedule.py

make.py does it too. The steps are diffusers' own, but computed in double precision from its noise levels in f32, so
that a wrong coefficient is not hidden by rounding. Samples, model outputs and noise come from `number` below, which the
test has as well.
"""

import contextlib
import hashlib
import json
import random
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm, scheduling_dpmsolver_multistep

HERE = Path(__file__).parent
CLASSES = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler, "dpm_solver": DPMSolverMultistepScheduler}
ELEMENTS = 4


def number(k: int) -> float:
    """The k-th of a sequence between -1 and 1."""
    return (k * 2654435761 % 2**32) / 2**31 - 1


def numbers(start: int) -> torch.Tensor:
    return torch.tensor([number(start + i) for i in range(ELEMENTS)], dtype=torch.float64).reshape(1, 1, 2, 2)


def timesteps() -> list[dict]:
    rows = []
    for solver in ("ddim", "dpm_solver"):
        for train in (100, 1000, 4000):
            for spacing, offset in (("leading", 0), ("leading", 1), ("linspace", 0), ("trailing", 0)):
                scheduler = CLASSES[solver](
                    num_train_timesteps=train, timestep_spacing=spacing, steps_offset=offset
                )
                digest, refused, spelled = hashlib.sha256(), [], {}
                for n in range(1, min(train, 1000) + 1):
                    scheduler.set_timesteps(n)
                    found = scheduler.timesteps.tolist()
                    falls = all(a > b for a, b in zip(found, found[1:]))
                    if len(found) != n or not falls or min(found) < 0 or max(found) >= train:
                        refused.append(n)
                        continue
                    digest.update(f"{n}: {','.join(map(str, found))}\n".encode())
                    if n in (3, 16):
                        spelled[n] = found
                rows.append({
                    "solver": solver, "train": train, "spacing": spacing, "offset": offset,
                    "counts": min(train, 1000), "refused": refused, "lists": spelled, "sha256": digest.hexdigest(),
                })
    return rows


class Doubles:
    """PyTorch whose float32 is float64, for code that casts samples."""

    def __getattr__(self, name):
        return getattr(torch, "float64" if name == "float32" else name)


@contextlib.contextmanager
def in_double(scheduler):
    for name in ("alphas_cumprod", "final_alpha_cumprod", "one", "sigmas"):
        if isinstance(getattr(scheduler, name, None), torch.Tensor):
            setattr(scheduler, name, getattr(scheduler, name).double())
    with mock.patch.object(scheduling_dpmsolver_multistep, "torch", Doubles()):
        yield


def exact_root(x: torch.Tensor) -> torch.Tensor:
    """The root as IEEE 754 rounds it. PyTorch's is an ulp off now and then, which zero terminal SNR makes large."""
    return torch.sqrt(x.double()).to(x.dtype)


def trajectory(solver: str, scheduler, options: dict) -> list[list[float]]:
    sample, samples = 1.5 * numbers(0), []
    with in_double(scheduler):
        for index, t in enumerate(scheduler.timesteps):
            output, noise = (numbers(ELEMENTS * (1 + 2 * index + i)) for i in (0, 1))
            if solver == "ddpm":
                with mock.patch.object(scheduling_ddpm, "randn_tensor", lambda *_, **__: noise):
                    sample = scheduler.step(output, t, sample).prev_sample
            else:
                sample = scheduler.step(output, t, sample, variance_noise=noise, **options).prev_sample
            assert sample.dtype == torch.float64
            samples.append([float(f"{value:.12g}") for value in sample.flatten().tolist()])
    return samples


def case(solver: str, config: dict, steps: int | list[int], options: dict | None = None, text: str | None = None) -> dict:
    row = {"solver": solver, "config": text or json.dumps(config), "steps": steps} | (options or {})
    try:
        with mock.patch.object(torch.Tensor, "sqrt", exact_root):
            scheduler = CLASSES[solver].from_config(config)
        if isinstance(steps, int):
            scheduler.set_timesteps(steps)
        else:
            scheduler.set_timesteps(timesteps=steps)
        row["timesteps"] = scheduler.timesteps.tolist()
        row["samples"] = trajectory(solver, scheduler, options or {})
        if not np.isfinite(row["samples"]).all():
            row["refused"] = "not finite"
    except Exception as error:
        row["refused"] = type(error).__name__
    if "refused" in row:
        row.pop("samples", None)
    return row


def random_cases() -> list[dict]:
    rng, rows = random.Random(12), []
    for index in range(110):
        solver = ("dpm_solver", "dpm_solver", "dpm_solver", "ddim", "ddpm")[index % 5]
        config = {
            "num_train_timesteps": rng.choice((1000, 1000, 100)),
            "beta_schedule": rng.choice(("linear", "scaled_linear", "squaredcos_cap_v2")),
            "prediction_type": rng.choice(("epsilon", "sample", "v_prediction")),
            "timestep_spacing": rng.choice(("leading", "linspace", "trailing")),
            "rescale_betas_zero_snr": rng.random() < 0.2,
            "thresholding": rng.random() < 0.3,
        }
        if config["timestep_spacing"] == "leading":
            config["steps_offset"] = rng.choice((0, 1))
        options = {}
        if solver == "dpm_solver":
            config |= {
                "solver_order": rng.choice((1, 2, 2, 3, 3)),
                "solver_type": rng.choice(("midpoint", "heun")),
                "algorithm_type": rng.choice(("dpmsolver++", "dpmsolver++", "sde-dpmsolver++")),
                "lower_order_final": rng.random() < 0.6,
                "euler_at_final": rng.random() < 0.3,
                "final_sigmas_type": rng.choice(("zero", "sigma_min")),
            }
            if config["beta_schedule"] == "squaredcos_cap_v2" and rng.random() < 0.5:
                config["lambda_min_clipped"] = -5.1
            levels = rng.choice((None, None, "use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas"))
            if levels:
                config[levels] = True
        else:
            config |= {"clip_sample": rng.random() < 0.6, "clip_sample_range": rng.choice((1.0, 0.7, 2.5))}
        if solver == "ddim":
            config["set_alpha_to_one"] = rng.random() < 0.5
            options = {"eta": rng.choice((0.0, 0.4, 1.0)), "use_clipped_model_output": rng.random() < 0.5}
        if solver == "ddpm":
            config["variance_type"] = rng.choice(("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"))
            if rng.random() < 0.4:
                config["beta_schedule"] = rng.choice(("sigmoid", "laplace"))
        steps = rng.choice((1, 2, 3, 5, 8, 10, 14, 15, 16, 20))
        config["_class_name"] = CLASSES[solver].__name__
        rows.append(case(solver, config, steps, options))
    # The file as save_config writes it, which is not quite JSON.
    scheduler = DPMSolverMultistepScheduler(solver_order=3, solver_type="heun")
    rows.append(case("dpm_solver", dict(scheduler.config), 12, text=scheduler.to_json_string()))
    return rows


def list_cases() -> list[dict]:
    rows = []
    for order in (1, 2, 3):
        config = {"_class_name": "DPMSolverMultistepScheduler", "solver_order": order}
        for steps in ([999], [999, 749, 499, 249], [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]):
            rows.append(case("dpm_solver", config, steps))
    for kind in ("fixed_small", "fixed_large"):
        config = {"_class_name": "DDPMScheduler", "variance_type": kind}
        for steps in ([500], [999, 499, 0], [980, 611, 400, 20]):
            rows.append(case("ddpm", config, steps))
    return rows


def null_cases() -> list[dict]:
    rows = []
    for solver, cls in CLASSES.items():
        names = [name for name in cls().config if not name.startswith("_")]
        for extra in (
            {"timestep_spacing": "leading"},
            {"timestep_spacing": "trailing", "thresholding": True, "beta_schedule": "squaredcos_cap_v2"},
            {"timestep_spacing": "linspace", "clip_sample": False, "trained_betas": [0.001 + 0.001 * i for i in range(20)],
             "num_train_timesteps": 20},
        ):
            for name in names:
                config = {key: value for key, value in extra.items() if key in names}
                config |= {"_class_name": cls.__name__, name: None}
                rows.append(case(solver, config, 4) | {"null": name})
    return rows


def write() -> None:
    for name, value in (
        ("timesteps", timesteps()),
        ("steps", {"random": random_cases(), "lists": list_cases(), "null": null_cases()}),
    ):
        (HERE / f"schedule_{name}.json").write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
