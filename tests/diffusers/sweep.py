# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Holds waft against live diffusers: networks and schedulers drawn at random from a seed.

    python tests/diffusers/sweep.py [--networks 25] [--schedulers 44] [--seed 0]

See README.md beside this script. Exits with 1 if anything differs by more than its bound.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tests" / "goldens"))

from schedulers import SCHEDULERS, run

DIGITS = ROOT / "models" / "digits" / "checkpoint"
CALL_BOUND = 1e-5
TRAJECTORY_BOUND = 1e-3


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over largest reference."""
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def waft(binary: Path, *arguments) -> str:
    environment = os.environ | {"RUST_BACKTRACE": "0"}
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode != 0:
        raise RuntimeError(" ".join(done.stderr.split()) or f"exit {done.returncode}")
    return done.stdout


def network_config(rng: random.Random) -> dict:
    """A UNet2DModel that waft supports: any value of any field that diffusers runs with."""
    levels = rng.choice((1, 2, 2, 3, 3, 4))
    groups = rng.choice((1, 2, 3, 4))
    channels = [groups * rng.choice((2, 4, 5, 8, 12)) for _ in range(levels)]
    step = 2 ** (levels - 1)
    size = rng.choice((step * rng.randint(1, 16 // step), [step * rng.randint(1, 16 // step) for _ in range(2)]))
    downs = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "UNetResDownBlock2D")
    ups = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "UNetResAttnUpBlock2D")
    config = {
        "sample_size": size,
        "in_channels": rng.choice((1, 2, 3)),
        "block_out_channels": channels,
        "layers_per_block": rng.randint(1, 3),
        "down_block_types": [rng.choice(downs) for _ in channels],
        "up_block_types": [rng.choice(ups) for _ in channels],
        "norm_num_groups": groups,
        "norm_eps": rng.choice((1e-5, 1e-6, 1e-3)),
        # Widths that do not divide the channels among them; one head of all where a width does not fit.
        "attention_head_dim": rng.choice([h for h in (None, 1, 2, 3, 4, 5, 8) if h is None or h <= min(channels)]),
        "add_attention": rng.random() < 0.7,
        "center_input_sample": rng.random() < 0.3,
        "downsample_padding": rng.choice((0, 1)),
        "downsample_type": rng.choice(("conv", "conv", "resnet")),
        "upsample_type": rng.choice(("conv", "conv", "resnet")),
        "flip_sin_to_cos": rng.random() < 0.5,
        "freq_shift": rng.choice((0, 0.5)) if channels[0] < 4 else rng.choice((0, 1)),
        "mid_block_scale_factor": rng.choice((1, 1, 1.5, -2.0)),
        "act_fn": rng.choice(("silu", "swish", "mish", "gelu", "relu", "SiLU")),
        "resnet_time_scale_shift": rng.choice(("default", "scale_shift")),
        "time_embedding_type": rng.choice(("positional", "positional", "fourier", "learned")),
        "class_embed_type": rng.choice((None, None, "timestep", "identity")),
        "num_class_embeds": rng.choice((None, None, 5)),
        "num_train_timesteps": 1000,
        "dropout": rng.choice((0.0, 0.1)),
    }
    # Conditions and variances are channels of single calls.
    config["out_channels"] = rng.choice((config["in_channels"], config["in_channels"], 1, 4))
    if config["time_embedding_type"] == "fourier" and config["class_embed_type"] == "timestep":
        # Class 0 has no logarithm.
        config["class_embed_type"] = None
    if rng.random() < 0.3:
        config["time_embedding_dim"] = rng.choice((16, 24, 40))
    if rng.random() < 0.3:
        config["attn_norm_num_groups"] = rng.choice([g for g in (1, 2, 3, 4, 5) if channels[-1] % g == 0])
    if rng.random() < 0.15:
        config["mid_block_type"] = None
    if rng.random() < 0.25:
        config |= filtered(rng, levels)
    # A model, its state dictionary beside what the tensors do not tell, or that of the diffusion course's class around it.
    config["form"] = rng.choice(("model", "model", "state_dict", "class_channels"))
    if config["form"] == "class_channels":
        config |= {"class_embed_type": None, "num_class_embeds": None, "class_emb_size": rng.choice((1, 2, 4))}
        if any("Skip" in kind for kind in config["down_block_types"]):
            config["class_emb_size"] = rng.choice((1, 2))
    return config


def filtered(rng: random.Random, levels: int) -> dict:
    """Blocks that resample by FIR filters: all before the last that halves, all behind the first that doubles."""
    attends = rng.random() < 0.4
    channels = [rng.choice((32, 64) if attends else (4, 8, 12, 20)) for _ in range(levels)]
    downs = ("SkipDownBlock2D", "AttnSkipDownBlock2D") if attends else ("SkipDownBlock2D",)
    ups = ("SkipUpBlock2D", "AttnSkipUpBlock2D") if attends else ("SkipUpBlock2D",)
    groups, halves, doubles = rng.choice((None, 1, 2, 4)), rng.randint(0, levels), rng.randint(0, levels)
    others = ("DownBlock2D", "UpBlock2D") if groups else (None, None)
    if groups is None:
        halves, doubles = levels, 0
    return {
        "in_channels": 3, "out_channels": 3, "norm_num_groups": groups, "block_out_channels": channels,
        "down_block_types": [rng.choice(downs) if level < halves else others[0] for level in range(levels)],
        "up_block_types": [rng.choice(ups) if level >= doubles else others[1] for level in range(levels)],
        "attn_norm_num_groups": rng.choice((None, 2)), "freq_shift": 0, "attention_head_dim": rng.choice((None, 2, 4)),
    }


class ClassConditionedUnet(torch.nn.Module):
    """The diffusion course's: the vector of a class as channels behind the sample's."""

    def __init__(self, config: dict, class_emb_size: int):
        super().__init__()
        self.class_emb = torch.nn.Embedding(5, class_emb_size)
        self.model = UNet2DModel(**config)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        channels = self.class_emb(class_labels)[:, :, None, None].expand(-1, -1, *sample.shape[2:])
        return self.model(torch.cat((sample, channels), 1), timestep).sample


def save_state_dict(model: torch.nn.Module, config: dict, folder: Path) -> None:
    """The tensors, and what they do not tell."""
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pt")
    untold = {
        "sample_size", "act_fn", "attention_head_dim", "attn_norm_num_groups", "center_input_sample", "class_embed_type",
        "downsample_padding", "flip_sin_to_cos", "freq_shift", "mid_block_scale_factor", "norm_eps", "norm_num_groups",
    }
    if any("Skip" in kind for kind in config["down_block_types"] + config["up_block_types"]):
        untold |= {"down_block_types", "up_block_types"}
    (folder / "config.json").write_text(json.dumps({field: config[field] for field in config if field in untold}))


@torch.no_grad()
def check_network(binary: Path, config: dict, seed: int, folder: Path) -> float:
    """The relative error of three calls."""
    torch.manual_seed(seed)
    config = dict(config)
    form, class_emb_size = config.pop("form"), config.pop("class_emb_size", None)
    if class_emb_size:
        # Beside filters there are three channels in all.
        is_filtered = any("Skip" in kind for kind in config["down_block_types"])
        sample_channels = 3 - class_emb_size if is_filtered else config["in_channels"]
        config["in_channels"] = sample_channels + class_emb_size
        model = ClassConditionedUnet(config, class_emb_size).eval()
    else:
        sample_channels = config["in_channels"]
        model = UNet2DModel(**config).eval()
    for parameter in model.parameters():
        # Norms and biases too, so that a mix-up shows.
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    if form == "model":
        model.save_pretrained(folder / "model")
    else:
        save_state_dict(model, config, folder / "model")
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    tensors = {
        "sample": torch.randn(3, sample_channels, height, width),
        "timestep": torch.tensor([0, 999, torch.randint(1, 999, ()).item()]),
    }
    if config["time_embedding_type"] == "fourier":
        tensors["timestep"][0] = 1
    if config["class_embed_type"] == "identity":
        tensors["class_labels"] = torch.randn(3, model.time_embedding.linear_2.out_features)
    elif class_emb_size or config["class_embed_type"] == "timestep" or config["num_class_embeds"]:
        tensors["class_labels"] = torch.randint(0, 5, (3,))
    save_file(tensors, folder / "in.safetensors")
    waft(binary, "predict", folder / "model", "--input", folder / "in.safetensors", "--out", folder / "out.safetensors")
    expected = model(tensors["sample"], tensors["timestep"], class_labels=tensors.get("class_labels"))
    expected = expected if class_emb_size else expected.sample
    return relative_error(load_file(folder / "out.safetensors")["out"], expected)


def threshold(rng: random.Random) -> dict:
    """Dynamic thresholding, up to 1, where it clips, above, and without a limit."""
    return {
        "thresholding": True,
        "dynamic_thresholding_ratio": rng.choice((0.995, 0.95, 0.8)),
        "sample_max_value": rng.choice((1.0, 0.9, 1.5, 3.0, None)),
    }


def given_list(rng: random.Random, kind: str) -> dict | None:
    """Timesteps or noise levels that somebody wrote, as `set_timesteps` takes them."""
    timesteps = sorted(rng.sample(range(1000), rng.randint(3, 30)), reverse=True)
    if kind in ("ddpm", "dpm-solver++", "euler", "heun", "lcm") and rng.random() < 0.2:
        return {"timesteps": timesteps}
    if kind == "euler" and rng.random() < 0.25:
        return {"sigmas": [round(10 ** (1.1 - 2.5 * i / 9), 4) for i in range(10)] + [0.0]}
    if kind == "flow-match-euler" and rng.random() < 0.4:
        stride = rng.uniform(0.05, 0.08)
        return {"sigmas": [round(1 - i * stride, 4) for i in range(12)]}
    return None


def set_timesteps(scheduler, steps: int | dict) -> None:
    """A number of steps, or a list."""
    if isinstance(steps, dict):
        scheduler.set_timesteps(**steps)
    else:
        scheduler.set_timesteps(steps)


def scheduler_config(rng: random.Random, kind: str) -> tuple[str, dict, int | dict, dict]:
    """Fields of a scheduler, a number of steps with a usable list or a list, and what its step takes besides."""
    spaced = kind in ("ddim", "ddpm", "dpm-solver++", "unipc", "euler", "euler-ancestral", "heun")
    while True:
        config, options = {"_class_name": SCHEDULERS[kind].__name__}, {}
        if spaced or kind == "lcm":
            # Unclipped, the first clean sample of a cosine schedule is 20,000 times the rounding of the network's output.
            config["beta_schedule"] = rng.choice(("linear", "scaled_linear"))
        if spaced:
            config["timestep_spacing"] = rng.choice(("leading", "linspace", "trailing"))
            if config["timestep_spacing"] == "leading":
                config["steps_offset"] = rng.choice((0, 1))
        if kind == "ddim-inverse":
            config |= {
                "beta_schedule": rng.choice(("linear", "scaled_linear", "squaredcos_cap_v2")),
                "timestep_spacing": rng.choice(("leading", "trailing")), "set_alpha_to_one": rng.random() < 0.5,
                "clip_sample": rng.random() < 0.5, "clip_sample_range": rng.choice((1.0, 1.5)),
            }
        if kind in ("ddim", "ddpm"):
            config |= {"clip_sample": rng.choice((True, True, False, None)), "clip_sample_range": rng.choice((1.0, 0.8, 1.5))}
            config |= threshold(rng) if rng.random() < 0.3 else {}
            config["beta_schedule"] = rng.choice(("squaredcos_cap_v2", "linear", "scaled_linear"))
            if config["beta_schedule"] == "squaredcos_cap_v2" and not config["clip_sample"]:
                config |= threshold(rng)
        if kind == "ddim":
            config["set_alpha_to_one"] = rng.choice((True, False, None))
            options = {"eta": rng.choice((0.0, 0.0, 0.5, 1.0)), "use_clipped_model_output": rng.random() < 0.5}
        if kind == "ddpm":
            config["variance_type"] = rng.choice(("fixed_small", "fixed_small_log", "fixed_large"))
            if config.get("thresholding") or config["clip_sample"]:
                config["beta_schedule"] = rng.choice((config["beta_schedule"], "sigmoid", "laplace"))
        if kind == "dpm-solver++":
            config |= {
                "solver_order": rng.choice((1, 2, 3)), "solver_type": rng.choice(("midpoint", "heun")),
                "algorithm_type": rng.choice(("dpmsolver++", "sde-dpmsolver++")),
                "lower_order_final": rng.random() < 0.7, "euler_at_final": rng.random() < 0.2,
            }
            config |= threshold(rng) if rng.random() < 0.4 else {}
        if kind == "unipc":
            config |= {"solver_order": rng.choice((1, 2)), "predict_x0": rng.random() < 0.7}
            config |= threshold(rng) if rng.random() < 0.4 else {}
            config["solver_type"] = "bh2" if config["predict_x0"] else rng.choice(("bh1", "bh2"))
            if not config["predict_x0"]:
                config |= {"thresholding": False, "final_sigmas_type": "sigma_min"}
        if kind in ("ddim", "ddpm", "dpm-solver++", "unipc", "euler") and config.get("predict_x0", True) and rng.random() < 0.2:
            # Without signal at the highest level: the digits' output stands for a velocity. (UniPC that predicts noise multiplies
            # a difference by 4,096 there: diffusers in f32 and in f64 are 4e-3 apart.)
            config |= {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        if kind in ("dpm-solver++", "unipc", "euler", "heun", "flow-match-euler"):
            levels = rng.choice((None, None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"))
            if kind == "dpm-solver++" and levels is None and rng.random() < 0.2:
                levels = "use_lu_lambdas"
            if levels and levels != "use_beta_sigmas" or kind != "dpm-solver++" and levels:
                config[levels] = True
        if kind in ("heun", "lcm"):
            config |= {"clip_sample": rng.random() < 0.5, "clip_sample_range": rng.choice((1.0, 1.5))}
        if kind == "lcm":
            config |= threshold(rng) if rng.random() < 0.3 else {}
        if kind == "flow-match-euler":
            config |= {"shift": rng.choice((1.0, 3.0, 0.5)), "stochastic_sampling": rng.random() < 0.3}
        if kind in ("edm-euler", "consistency"):
            config |= {"sigma_max": rng.choice((80.0, 20.0)), "rho": rng.choice((7.0, 5.0))}
        if kind == "edm-euler":
            config["sigma_schedule"] = rng.choice(("karras", "exponential"))
        steps = rng.choice((rng.randint(2, 20), rng.randint(2, 50)))
        if kind == "consistency":
            steps = min(steps, 40)
        given = None if any(config.get(name) for name in config if name.startswith("use_")) else given_list(rng, kind)
        if given and kind == "euler":
            config["timestep_spacing"] = "linspace"
            config.pop("steps_offset", None)
        scheduler = SCHEDULERS[kind].from_config(config)
        if given:
            return kind, config, given, options
        scheduler.set_timesteps(steps)
        found = scheduler.timesteps.tolist()
        calls = 2 * steps - 1 if kind == "heun" else steps
        is_list = len(found) == calls and len(set(found[:2])) == len(found[:2])
        if is_list and (not spaced or (min(found) >= 0 and max(found) < 1000)):
            return kind, config, steps, options


@torch.no_grad()
def check_scheduler(
    binary: Path, model: UNet2DModel, row: tuple[str, dict, int | dict, dict], seed: int, folder: Path
) -> float:
    """The relative error of two pictures; infinite if the timesteps are not the same."""
    kind, config, steps, options = row
    checkpoint = folder / "checkpoint"
    shutil.copytree(DIGITS, checkpoint)
    (checkpoint / "scheduler_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    scheduler = SCHEDULERS[kind].from_config(config)
    set_timesteps(scheduler, steps)
    timesteps = scheduler.timesteps
    latents, label = torch.randn((2, 1, 8, 8), generator=generator), seed % 10
    noise = torch.randn((len(timesteps), 2, 1, 8, 8), generator=generator)
    save_file({"latents": latents}, folder / "latents.safetensors")
    save_file({"noise": noise}, folder / "noise.safetensors")
    file, out = folder / "model.waft", folder / "out.safetensors"
    given = steps if isinstance(steps, dict) else {"steps": [steps]}
    listed = [word for name, values in given.items() for word in (f"--{name}", ",".join(map(str, values)))]
    extra = []
    if kind == "ddim":
        extra = ["--eta", options["eta"], "--use-clipped-model-output", str(options["use_clipped_model_output"]).lower()]
    waft(binary, "export-weights", checkpoint, "--out", file, "--precision", "f32", *listed, *extra)
    told = json.loads(waft(binary, "inspect", file, "--json"))["timesteps"][0]
    if len(told) != len(timesteps) or any(abs(a - b) > 0.5001 for a, b in zip(told, timesteps.tolist())):
        return float("inf")
    arguments = ["--class", label, "--latents", folder / "latents.safetensors", "--out", out]
    if kind == "ddim-inverse":
        # It starts from a picture.
        pixels = torch.randint(0, 256, (8, 8), generator=generator)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / "init.png")
        latents = pixels.reshape(1, 1, 8, 8) / 127.5 - 1
        arguments[2:4] = ["--init", folder / "init.png"]
    try:
        waft(binary, "sample", "--model", file, *arguments, "--noise", folder / "noise.safetensors")
    except RuntimeError as refusal:
        if "no step of the model takes noise" not in str(refusal):
            raise
        waft(binary, "sample", "--model", file, *arguments)
    def predict(_, scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model(scaled, t, class_labels=torch.full((len(scaled),), label)).sample

    sample = run(scheduler, latents, predict, lambda index: noise[index], options)
    if kind == "ddim-inverse":
        return relative_error(load_file(out)["latents"], sample)
    # waft writes pictures, from -1 to 1.
    return relative_error(load_file(out)["sample"], sample.clamp(-1, 1))


def sweep(kind: str, count: int, bound: float, draw, check) -> bool:
    """Prints a row for each configuration, and the worst; whether all are within the bound."""
    worst, failures = 0.0, 0
    for index in range(count):
        seed, config = draw(index)
        with tempfile.TemporaryDirectory() as folder:
            try:
                error, note = check(config, seed, Path(folder)), ""
            except RuntimeError as refusal:
                error, note = float("inf"), str(refusal)
        is_good = error <= bound
        failures += not is_good
        worst = max(worst, error)
        print(f"{kind} {index:3} seed {seed:6} {error:9.1e} {'ok' if is_good else 'DIFFERS'} {json.dumps(config)} {note}")
    print(f"{count} {kind}s: worst relative error {worst:.1e}, bound {bound:.0e}, {failures} above it\n", flush=True)
    return failures == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=25)
    parser.add_argument("--schedulers", type=int, default=44)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", type=Path, help="the command line of waft [default: builds xtask]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    binary = args.binary
    if binary is None:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "xtask"], cwd=ROOT, check=True)
        binary = ROOT / "target" / "release" / "xtask"
    digits = UNet2DModel.from_pretrained(DIGITS).eval()

    def draw_with(make):
        def draw(index: int):
            seed = 1000 * args.seed + index
            return seed, make(random.Random(seed), index)
        return draw

    kinds = list(SCHEDULERS)

    good = sweep(
        "network", args.networks, CALL_BOUND, draw_with(lambda rng, _: network_config(rng)),
        lambda config, seed, folder: check_network(binary, config, seed, folder),
    )
    good &= sweep(
        "scheduler", args.schedulers, TRAJECTORY_BOUND,
        draw_with(lambda rng, index: scheduler_config(rng, kinds[index % len(kinds)])),
        lambda row, seed, folder: check_scheduler(binary, digits, row, seed, folder),
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
