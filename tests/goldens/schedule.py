# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy"]
# ///
"""Writes schedule_timesteps.json and schedule_steps.json with diffusers' schedulers, for tests/tests/suite/schedule.rs.

    python tests/goldens/schedule.py

make.py does it too. The steps are diffusers' own, but computed in double precision from its noise levels in f32, so
that a wrong coefficient is not hidden by rounding. Samples, model outputs and noise come from `number` below, which the
test has as well.
"""

import contextlib
import hashlib
import json
import random
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from schedulers import SCHEDULERS, run

HERE = Path(__file__).parent
ELEMENTS = 4


def number(k: int) -> float:
    """The k-th of a sequence between -1 and 1."""
    return (k * 2654435761 % 2**32) / 2**31 - 1


def numbers(start: int) -> torch.Tensor:
    return torch.tensor([number(start + i) for i in range(ELEMENTS)], dtype=torch.float64).reshape(1, 1, 2, 2)


SPACED = ("ddim", "dpm-solver++", "unipc", "euler", "euler-ancestral", "heun", "ddpm", "ddim-inverse")


def timesteps() -> list[dict]:
    rows = []
    for solver in SPACED:
        for train in (100, 1000, 4000):
            for spacing, offset in (("leading", 0), ("leading", 1), ("linspace", 0), ("trailing", 0)):
                config = {"num_train_timesteps": train, "timestep_spacing": spacing, "steps_offset": offset}
                if solver == "ddim-inverse" and spacing == "linspace":
                    continue
                rows.append(timestep_row(solver, config, min(train, 1000), train))
    for config in ({}, {"original_inference_steps": 100}, {"num_train_timesteps": 4000, "original_inference_steps": 999}):
        rows.append(timestep_row("lcm", config, config.get("original_inference_steps", 50), 4000))
    for solver in ("edm-euler", "consistency"):
        for config in ({}, {"rho": 5.0, "sigma_max": 20.0, "num_train_timesteps": 1000}):
            rows.append(logarithm_row(solver, config))
    for config in ({}, {"shift": 3.0}, {"shift": 0.5, "num_train_timesteps": 100}, {"shift": 2.0, "shift_terminal": 0.02}):
        rows.append(timestep_row("flow-match-euler", config, config.get("num_train_timesteps", 1000), 1 << 20))
    return rows


def logarithm_row(solver: str, config: dict) -> dict:
    """Logarithms are as good as the platform's: of each list its ends and its sum."""
    scheduler = SCHEDULERS[solver](**config)
    counts = min(scheduler.config.num_train_timesteps, 1000)
    ends = []
    for n in range(1, counts + 1):
        scheduler.set_timesteps(n)
        found = scheduler.timesteps.double()
        assert len(found) == n
        ends.append([float(f"{v:.8g}") for v in (found[0].item(), found[-1].item(), found.sum().item())])
    return {"solver": solver, "config": json.dumps(config), "counts": counts, "ends": ends}


def timestep_row(solver: str, config: dict, counts: int, train: int) -> dict:
    """A digest over the lists of all counts, each timestep as the bits of a float32."""
    scheduler = SCHEDULERS[solver](**config)
    digest, refused, spelled = hashlib.sha256(), [], {}
    for n in range(1, counts + 1):
        scheduler.set_timesteps(n)
        found = scheduler.timesteps.tolist()
        if solver == "heun":
            found = found[:1] + found[1::2]
        if solver == "ddim-inverse":
            found = found[::-1]
        falls = all(a > b for a, b in zip(found, found[1:]))
        if len(found) != n or not np.isfinite(found).all() or not falls or min(found) < 0 or max(found) >= train:
            refused.append(n)
            continue
        bits = np.array(found, dtype=np.float32).view(np.uint32)
        digest.update(f"{n}: {','.join(map(str, bits))}\n".encode())
        if n in (3, 16):
            spelled[n] = found
    return {
        "solver": solver, "config": json.dumps(config), "counts": counts, "refused": refused, "lists": spelled,
        "sha256": digest.hexdigest(),
    }


class Doubles:
    """PyTorch whose float32 is float64, for code that casts samples."""

    def __getattr__(self, name):
        return getattr(torch, "float64" if name == "float32" else name)


@contextlib.contextmanager
def in_double(scheduler):
    for name in ("alphas_cumprod", "final_alpha_cumprod", "initial_alpha_cumprod", "one", "sigmas"):
        if isinstance(getattr(scheduler, name, None), torch.Tensor):
            setattr(scheduler, name, getattr(scheduler, name).double())
    with mock.patch.object(sys.modules[type(scheduler).__module__], "torch", Doubles()):
        yield


def exact_root(x: torch.Tensor) -> torch.Tensor:
    """The root as IEEE 754 rounds it. PyTorch's is an ulp off now and then, which zero terminal SNR makes large."""
    return torch.sqrt(x.double()).to(x.dtype)


def trajectory(scheduler, options: dict) -> list[list[float]]:
    """The network's input after each step but the last, then the picture."""
    inputs = []

    def predict(index: int, scaled: torch.Tensor, _) -> torch.Tensor:
        inputs.append(scaled)
        return numbers(ELEMENTS * (1 + 2 * index))

    with in_double(scheduler):
        picture = run(scheduler, 1.5 * numbers(0), predict, lambda index: numbers(ELEMENTS * (2 + 2 * index)), options)
    return [[float(f"{value:.12g}") for value in sample.flatten().tolist()] for sample in [*inputs[1:], picture]]


def case(solver: str, config: dict, steps: int | list[int], options: dict | None = None, text: str | None = None) -> dict:
    row = {"solver": solver, "config": text or json.dumps(config), "steps": steps} | (options or {})
    try:
        with mock.patch.object(torch.Tensor, "sqrt", exact_root):
            scheduler = SCHEDULERS[solver].from_config(config)
        if isinstance(steps, int):
            scheduler.set_timesteps(steps)
        elif isinstance(steps, dict):
            scheduler.set_timesteps(sigmas=steps["sigmas"])
        else:
            scheduler.set_timesteps(timesteps=steps)
        row["timesteps"] = scheduler.timesteps.tolist()
        row["samples"] = trajectory(scheduler, options or {})
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
        solver = ("dpm-solver++", "dpm-solver++", "dpm-solver++", "ddim", "ddpm")[index % 5]
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
        if solver == "dpm-solver++":
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
        config["_class_name"] = SCHEDULERS[solver].__name__
        rows.append(case(solver, config, steps, options))
    # The file as save_config writes it, which is not quite JSON.
    scheduler = DPMSolverMultistepScheduler(solver_order=3, solver_type="heun")
    rows.append(case("dpm-solver++", dict(scheduler.config), 12, text=scheduler.to_json_string()))
    return rows


def beta_cases() -> list[dict]:
    """DPM-Solver++ at quantiles of a beta distribution."""
    rng, rows = random.Random(29), []
    for steps in (3, 5, 10, 14, 20, 50):
        config = {
            "_class_name": SCHEDULERS["dpm-solver++"].__name__, "use_beta_sigmas": True, "solver_order": rng.choice((1, 2, 3)),
            "beta_schedule": rng.choice(("linear", "scaled_linear")),
            "prediction_type": rng.choice(("epsilon", "sample", "v_prediction")),
            "final_sigmas_type": rng.choice(("zero", "sigma_min")),
        }
        rows.append(case("dpm-solver++", config, steps))
    return rows


def sigma_cases() -> list[dict]:
    """Solvers that came later, with a generator of their own."""
    rng, rows = random.Random(16), []
    kinds = ("euler", "euler-ancestral", "heun", "lcm", "flow-match-euler", "edm-euler", "consistency", "unipc", "unipc")
    for index in range(30 * len(kinds)):
        solver = kinds[index % len(kinds)]
        config = {"num_train_timesteps": rng.choice((1000, 1000, 100))}
        levels = rng.choice((None, None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"))
        spacing = rng.choice(("leading", "linspace", "trailing"))
        if solver in ("euler", "euler-ancestral", "heun", "lcm", "unipc"):
            config |= {
                "beta_schedule": rng.choice(("linear", "scaled_linear", "squaredcos_cap_v2")),
                "prediction_type": rng.choice(("epsilon", "epsilon", "sample", "v_prediction")),
                "timestep_spacing": spacing,
            }
            if spacing == "leading":
                config["steps_offset"] = rng.choice((0, 1))
            if rng.random() < 0.2:
                config |= {"beta_start": 0.0003, "beta_end": 0.03}
            if solver != "heun":
                config["rescale_betas_zero_snr"] = rng.random() < 0.2
        if solver in ("euler", "heun", "unipc", "flow-match-euler") and levels:
            config[levels] = True
        if solver in ("euler", "unipc"):
            config["final_sigmas_type"] = rng.choice(("zero", "zero", "sigma_min"))
            if rng.random() < 0.2:
                config |= {"sigma_min": 0.02, "sigma_max": 30.0}
        if solver == "euler":
            config["interpolation_type"] = rng.choice(("linear", "linear", "log_linear"))
            config["timestep_type"] = rng.choice(("discrete", "discrete", "continuous"))
        if solver in ("heun", "lcm"):
            config |= {"clip_sample": rng.random() < 0.5, "clip_sample_range": rng.choice((1.0, 0.7))}
        if solver == "heun" and rng.random() < 0.2:
            config["beta_schedule"] = "exp"
        if solver == "lcm":
            if config["rescale_betas_zero_snr"] and config["prediction_type"] == "epsilon":
                # Division by zero, whose infinities the clip would hide.
                config["prediction_type"] = "v_prediction"
            config |= {"original_inference_steps": rng.choice((20, 50)), "thresholding": rng.random() < 0.2}
            config["timestep_scaling"] = rng.choice((10.0, 0.3))
        if solver == "unipc":
            config |= {
                "solver_order": rng.choice((1, 2, 2, 2, 3)),
                "solver_type": rng.choice(("bh1", "bh2", "bh2")),
                "predict_x0": rng.random() < 0.7,
                "lower_order_final": rng.random() < 0.7,
                "thresholding": rng.random() < 0.3,
                "disable_corrector": rng.choice(([], [], [0], [1, 2])),
            }
            if config["beta_schedule"] == "linear" and rng.random() < 0.3:
                config.pop("beta_schedule")
        if solver == "flow-match-euler":
            config |= {
                "shift": rng.choice((1.0, 3.0, 0.5)),
                "stochastic_sampling": rng.random() < 0.4,
                "invert_sigmas": rng.random() < 0.2,
                "shift_terminal": rng.choice((None, None, 0.02)),
            }
        if solver in ("edm-euler", "consistency"):
            config |= {
                "sigma_min": rng.choice((0.002, 0.01)), "sigma_max": rng.choice((80.0, 20.0)),
                "sigma_data": rng.choice((0.5, 1.0)), "rho": rng.choice((7.0, 5.0)),
            }
        if solver == "edm-euler":
            config |= {
                "sigma_schedule": rng.choice(("karras", "exponential")),
                "prediction_type": rng.choice(("epsilon", "v_prediction")),
                "final_sigmas_type": rng.choice(("zero", "zero", "sigma_min")),
            }
        if solver == "consistency":
            config["num_train_timesteps"] = rng.choice((40, 40, 151))
            config |= {"clip_denoised": rng.random() < 0.7, "s_noise": rng.choice((1.0, 1.007))}
        config["_class_name"] = SCHEDULERS[solver].__name__
        rows.append(case(solver, config, rng.choice((1, 2, 3, 4, 5, 8, 10, 14, 15, 16, 20))))
    rows += beta_cases()
    # Absent fields have the defaults of each class; over 50 steps.
    for solver in kinds[:-1]:
        rows.append(case(solver, {"_class_name": SCHEDULERS[solver].__name__}, 20 if solver == "consistency" else 50))
    for solver in ("euler", "heun", "lcm", "unipc"):
        config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
        rows.append(case(solver, config | {"clip_sample": False}, 12))
    return rows


def inverse_cases() -> list[dict]:
    """DDIM backwards."""
    rng, rows = random.Random(19), []
    for _ in range(30):
        config = {
            "_class_name": "DDIMInverseScheduler",
            "num_train_timesteps": rng.choice((1000, 1000, 100)),
            "beta_schedule": rng.choice(("linear", "scaled_linear", "squaredcos_cap_v2")),
            "prediction_type": rng.choice(("epsilon", "epsilon", "sample", "v_prediction")),
            "timestep_spacing": rng.choice(("leading", "trailing")),
            "rescale_betas_zero_snr": rng.random() < 0.2,
            "clip_sample": rng.random() < 0.6,
            "clip_sample_range": rng.choice((1.0, 0.7)),
            "set_alpha_to_one": rng.random() < 0.5,
        }
        if config["timestep_spacing"] == "leading":
            config["steps_offset"] = rng.choice((0, 1))
        rows.append(case("ddim-inverse", config, rng.choice((1, 2, 3, 5, 10, 16, 20, 50))))
    rows.append(case("ddim-inverse", {"_class_name": "DDIMScheduler"}, 50))
    return rows


def threshold_cases() -> list[dict]:
    """Dynamic thresholding, its limit below 1, above it, and none."""
    rng, rows = random.Random(23), []
    for index in range(60):
        solver = ("ddim", "ddpm", "dpm-solver++", "unipc", "lcm")[index % 5]
        config = {
            "_class_name": SCHEDULERS[solver].__name__,
            "beta_schedule": rng.choice(("linear", "scaled_linear", "squaredcos_cap_v2")),
            "prediction_type": rng.choice(("epsilon", "sample", "v_prediction")),
            "timestep_spacing": rng.choice(("leading", "trailing")),
            "thresholding": True,
            "dynamic_thresholding_ratio": rng.choice((0.995, 0.995, 0.8, 0.5, 0.1, 0.0, 1.0)),
            "sample_max_value": rng.choice((1.5, 4.0, 100.0, 0.7, None)),
        }
        options = {}
        if solver in ("dpm-solver++", "unipc"):
            config["solver_order"] = rng.choice((1, 2))
        if solver == "ddim":
            options = {"eta": rng.choice((0.0, 0.6)), "use_clipped_model_output": rng.random() < 0.5}
        rows.append(case(solver, config, rng.choice((1, 3, 10, 20)), options))
    return rows


def list_cases() -> list[dict]:
    rows = []
    for steps in ([999], [999, 749, 499, 249], [980, 611, 400, 20]):
        for solver in ("euler", "heun", "lcm", "flow-match-euler"):
            rows.append(case(solver, {"_class_name": SCHEDULERS[solver].__name__}, steps))
    rows.append(case("flow-match-euler", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, [900, 500, 3]))
    for steps in ([0], [17, 0], [38, 22, 10, 5]):
        rows.append(case("consistency", {"_class_name": "CMStochasticIterativeScheduler"}, steps))
    for sigmas in ([14.6, 0.0], [14.6, 6.5, 2.1, 0.7, 0.3, 0.0], [3.0, 1.0, 0.25]):
        rows.append(case("euler", {"_class_name": "EulerDiscreteScheduler"}, {"sigmas": sigmas}))
    for shift in (1.0, 3.0):
        config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}
        rows.append(case("flow-match-euler", config, {"sigmas": [1.0, 0.7, 0.4, 0.1]}))
    for order in (1, 2, 3):
        config = {"_class_name": "DPMSolverMultistepScheduler", "solver_order": order}
        for steps in ([999], [999, 749, 499, 249], [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]):
            rows.append(case("dpm-solver++", config, steps))
    for kind in ("fixed_small", "fixed_large"):
        config = {"_class_name": "DDPMScheduler", "variance_type": kind}
        for steps in ([500], [999, 499, 0], [980, 611, 400, 20]):
            rows.append(case("ddpm", config, steps))
    return rows


def null_cases() -> list[dict]:
    rows = []
    for solver in ("ddim", "ddpm", "dpm-solver++"):
        cls = SCHEDULERS[solver]
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
        ("steps", {"random": random_cases(), "sigma": sigma_cases(), "lists": list_cases(), "null": null_cases(), "threshold": threshold_cases(), "inverse": inverse_cases()}),
    ):
        (HERE / f"schedule_{name}.json").write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    write()
