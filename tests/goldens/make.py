# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Writes the golden files of this folder with diffusers itself, in f32 on one thread.

    python tests/goldens/make.py [CHECKPOINT…]

See README.md beside this script for what each file is.
"""

import collections
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import original
import schedule
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent
DIGITS = HERE.parent.parent / "models" / "digits" / "checkpoint"

# Each covers corners that the others do not; weights are random, norms and biases too, so that a mix-up shows.
CHECKPOINTS = {
    "cifar_small": dict(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 8, 16, 16), layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        attention_head_dim=None,
    ),
    "heads": dict(
        sample_size=(8, 12), in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, add_attention=False, center_input_sample=True,
        mid_block_scale_factor=1.5,
    ),
    "velocity": dict(
        sample_size=6, in_channels=2, out_channels=2, block_out_channels=(8,), layers_per_block=3,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=2, num_class_embeds=5,
        time_embedding_dim=24,
    ),
    # Residual blocks that halve and double: blocks of their own, and as blocks with attention have them.
    "resampling": dict(
        sample_size=(8, 12), in_channels=1, out_channels=1, block_out_channels=(4, 8, 8), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D"),
        norm_num_groups=2, attention_head_dim=4, downsample_type="resnet", upsample_type="resnet",
    ),
    # Scaled and shifted normalizations of each step, no normalization before the attention in the middle, heads that do not
    # divide the channels.
    "scale_shift": dict(
        sample_size=(8, 12), in_channels=2, out_channels=2, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "ResnetDownsampleBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        norm_num_groups=4, attention_head_dim=3, resnet_time_scale_shift="scale_shift", act_fn="mish",
        time_embedding_type="learned", num_train_timesteps=1000, time_embedding_dim=16, downsample_type="resnet",
    ),
    # The same of each class, whose number is embedded like a timestep; an odd sinusoidal vector.
    "class_timestep": dict(
        sample_size=6, in_channels=1, out_channels=1, block_out_channels=(9, 12), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=3, attention_head_dim=5, resnet_time_scale_shift="scale_shift", act_fn="gelu",
        class_embed_type="timestep", attn_norm_num_groups=2,
    ),
    # An output that is divided by the timestep, vectors for classes, odd sizes, a padding that nothing reads.
    "fourier": dict(
        sample_size=(7, 5), in_channels=2, out_channels=2, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("AttnDownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=2, attention_head_dim=None,
        time_embedding_type="fourier", act_fn="relu", class_embed_type="identity", mid_block_scale_factor=-1.5,
        downsample_padding=3, time_embedding_dim=12,
    ),
    # A condition of two channels behind the sample's one, variances behind the prediction.
    "conditioned": dict(
        sample_size=8, in_channels=3, out_channels=2, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=4,
        center_input_sample=True,
    ),
    # Blocks that resample by FIR filters beside a path of pictures, with groups of their own.
    "filtered": dict(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 4), layers_per_block=1,
        down_block_types=("AttnSkipDownBlock2D", "SkipDownBlock2D"), up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D"),
        norm_num_groups=None, attention_head_dim=None, mid_block_scale_factor=2**0.5, time_embedding_type="fourier",
        time_embedding_dim=16, add_attention=False,
    ),
}

# What the checkpoints' own files do not say.
DEFAULTS = {
    "class_timestep": {"classes": 5},
    "fourier": {"class_embeddings": "class_embeddings.safetensors"},
    "conditioned": {"condition_channels": 2},
}


def random_model(name: str) -> UNet2DModel:
    torch.manual_seed(list(CHECKPOINTS).index(name))
    model = UNet2DModel(**CHECKPOINTS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        if name == "conditioned":
            # Trajectories of random networks are chaotic unless what they predict is small.
            model.conv_out.weight.mul_(0.1)
            model.conv_out.bias.mul_(0.1)
    return model


class ClassConditionedUnet(torch.nn.Module):
    """Of Hugging Face's diffusion course, unit 2: the vector of a class as channels behind the sample's."""

    def __init__(self, num_classes: int = 5, class_emb_size: int = 3):
        super().__init__()
        self.class_emb = torch.nn.Embedding(num_classes, class_emb_size)
        self.model = UNet2DModel(
            sample_size=8, in_channels=1 + class_emb_size, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        )

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        channels = self.class_emb(class_labels)[:, :, None, None].expand(-1, -1, *sample.shape[2:])
        return self.model(torch.cat((sample, channels), 1), timestep).sample


@torch.no_grad()
def class_channels() -> None:
    """Its state dictionary beside what no tensor tells, and three calls."""
    torch.manual_seed(80)
    model, folder = ClassConditionedUnet().eval(), HERE / "class_channels"
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "mnist.pt")
    (folder / "config.json").write_text(json.dumps({"sample_size": 8, "norm_num_groups": 4}) + "\n")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_config(folder)
    generator = torch.Generator().manual_seed(81)
    sample, timestep = torch.randn((3, 1, 8, 8), generator=generator), torch.tensor([0, 999, 421])
    classes = torch.tensor([0, 4, 2])
    out = model(sample, timestep, classes).contiguous()
    save_file(
        {"sample": sample, "timestep": timestep, "class_labels": classes, "out": out},
        HERE / "class_channels_predict.safetensors",
    )


def class_embeddings(model: UNet2DModel) -> torch.Tensor:
    """The vectors of five classes."""
    generator = torch.Generator().manual_seed(60)
    return torch.randn((5, model.time_embedding.linear_2.out_features), generator=generator)


@torch.no_grad()
def calls(model: UNet2DModel, timesteps: list[int], classes: list[int] | None, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    size = model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    sample = torch.randn((len(timesteps), model.config.in_channels, height, width), generator=generator)
    timestep = torch.tensor(timesteps)
    tensors = {"sample": sample, "timestep": timestep}
    if classes is not None:
        tensors["class_labels"] = torch.tensor(classes)
    labels = tensors.get("class_labels")
    if model.config.class_embed_type == "identity":
        labels = class_embeddings(model)[labels]
    out = model(sample, timestep, class_labels=labels).sample
    return tensors | {"out": out.contiguous()}


@torch.no_grad()
def trajectory(model, scheduler, latents, classes, steps, guidance=1.0, clipped=False, eta=0.0, noise=None):
    scheduler.set_timesteps(steps)
    samples = [latents]
    for index, t in enumerate(scheduler.timesteps):
        x = samples[-1]
        predicted = model(x, t, class_labels=classes).sample
        if guidance != 1:
            unconditional = model(x, t, class_labels=torch.full_like(classes, 10)).sample
            predicted = unconditional + guidance * (predicted - unconditional)
        step = scheduler.step(
            predicted, t, x, eta=eta, use_clipped_model_output=clipped,
            variance_noise=None if noise is None else noise[index],
        )
        samples.append(step.prev_sample)
    return samples


@torch.no_grad()
def conditioned() -> None:
    """Calls of the network with a condition, and pictures of DDIM that drop the variances."""
    model, channels = random_model("conditioned"), DEFAULTS["conditioned"]["condition_channels"]
    call = calls(model, [0, 999, 421], None, seed=70)
    sample, condition = call["sample"].split([model.config.in_channels - channels, channels], 1)
    save_file(
        call | {"sample": sample.contiguous(), "condition": condition.contiguous()},
        HERE / "conditioned_predict.safetensors",
    )
    generator = torch.Generator().manual_seed(71)
    latents = torch.randn((3, 1, 8, 8), generator=generator)
    condition = torch.rand((3, channels, 8, 8), generator=generator) * 2 - 1
    scheduler = DDIMScheduler.from_pretrained(HERE / "conditioned")
    scheduler.set_timesteps(10)
    drawn = latents
    for t in scheduler.timesteps:
        predicted = model(torch.cat((drawn, condition), 1), t).sample[:, :1]
        drawn = scheduler.step(predicted, t, drawn).prev_sample
    save_file(
        {"latents": latents, "condition": condition, "drawn": drawn.contiguous()},
        HERE / "conditioned_trajectories.safetensors",
    )


def schedules() -> dict:
    lists, alphas = [], []
    counts = [1, 2, 3, 7, 10, 16, 20, 31, 50, 61, 64, 97, 100, 103, 166, 372, 600, 1000]
    for train in (1000, 100):
        for spacing in ("leading", "linspace", "trailing"):
            for offset in (0, 1) if spacing == "leading" else (0,):
                for steps in counts:
                    if steps > train:
                        continue
                    scheduler = DDIMScheduler(
                        num_train_timesteps=train, timestep_spacing=spacing, steps_offset=offset
                    )
                    scheduler.set_timesteps(steps)
                    found = [int(t) for t in scheduler.timesteps]
                    text = ",".join(map(str, found))
                    row = {"train": train, "spacing": spacing, "offset": offset, "steps": steps, "len": len(found)}
                    row |= {"first": found[:3], "last": found[-3:], "sha256": hashlib.sha256(text.encode()).hexdigest()}
                    lists.append(row)
    for train in (1000, 100):
        for beta_schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
            for zero_snr in (False, True):
                scheduler = DDIMScheduler(
                    num_train_timesteps=train, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr
                )
                values = scheduler.alphas_cumprod.numpy().astype("<f4")
                places = sorted(set(np.linspace(0, train - 1, 25).astype(int).tolist()))
                alphas.append({
                    "train": train, "beta_schedule": beta_schedule, "zero_snr": zero_snr, "at": places,
                    "values": [float(values[i]) for i in places],
                    "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
                })
    return {"timesteps": lists, "alphas_cumprod": alphas}


def pickles() -> None:
    """What torch.save writes: state dictionaries that are read, and pickles that are refused."""
    folder = HERE / "pickles"
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(50)
    base = torch.randn((4, 6), generator=generator)
    base[0, 0] = 1.25
    tensors = collections.OrderedDict(
        plain=base, half=torch.randn((3, 2), generator=generator).half(),
        brain=torch.randn((2, 3), generator=generator).bfloat16(), transposed=base.T, offset=base[1:3, 2:5],
        scalar=torch.tensor(0.75), shared=base, parameter=torch.nn.Parameter(torch.randn(5, generator=generator)),
        counter=torch.tensor(7), double=torch.tensor(0.5, dtype=torch.float64), flag=torch.tensor(True),
    )
    floats = {key: tensor.detach() for key, tensor in tensors.items() if key not in ("counter", "double", "flag")}
    save_file({key: tensor.float().clone().contiguous() for key, tensor in floats.items()}, folder / "expected.safetensors")
    tensors._metadata = {"": {"version": 1}}
    torch.save(tensors, folder / "state_dict.bin")
    torch.save(dict(tensors), folder / "protocol4.bin", pickle_protocol=4)
    wrapped = {f"module._orig_mod.{key}": tensor for key, tensor in tensors.items()}
    worse = {key: torch.zeros(1) for key in wrapped}
    state = {"epoch": 3, "loss": 0.5, "name": "run", "seen": [1, 2, 1 << 40], "best": None, "done": False}
    torch.save(state | {"model": worse, "ema": wrapped, "optimizer": {"state": {0: worse}}}, folder / "training.ckpt")

    class Code:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"a": torch.zeros(2), "b": collections.defaultdict(list)}, folder / "module.bin")
    torch.save({"a": Code()}, folder / "code.bin")
    torch.save({"a": torch.zeros(2)}, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save([torch.zeros(2)], folder / "list.bin")
    torch.save({"weights": {"a": torch.zeros(2)}}, folder / "unnamed.bin")


def checkpoint(name: str) -> None:
    """Writes a checkpoint and what three calls of it give."""
    model = random_model(name)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    # Weights that half precision has.
    model = model.half() if name == "filtered" else model
    model.save_pretrained(folder)
    model = model.float()
    prediction = "v_prediction" if name == "velocity" else "epsilon"
    scheduler = DDIMScheduler(prediction_type=prediction, timestep_spacing="trailing")
    scheduler.save_config(folder)
    if name in DEFAULTS:
        (folder / "waft.json").write_text(json.dumps(DEFAULTS[name]) + "\n")
    if model.config.class_embed_type == "identity":
        save_file({"class_embeddings": class_embeddings(model)}, folder / "class_embeddings.safetensors")
    classes = [0, 4, 2] if model.config.num_class_embeds or model.config.class_embed_type else None
    timesteps = [1 if model.config.time_embedding_type == "fourier" else 0, 999, 421]
    if name == "conditioned":
        conditioned()
        return
    seed = 10 + list(CHECKPOINTS).index(name)
    save_file(calls(model, timesteps, classes, seed), HERE / f"{name}_predict.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    if names := sys.argv[1:]:
        for name in names:
            class_channels() if name == "class_channels" else checkpoint(name)
        return
    pickles()
    class_channels()
    for name in CHECKPOINTS:
        checkpoint(name)

    # diffusers' v-prediction through DDIM, without and with the clipped sample fed back.
    model, scheduler = random_model("velocity"), DDIMScheduler.from_pretrained(HERE / "velocity")
    latents = torch.randn((3, 2, 6, 6), generator=torch.Generator().manual_seed(20))
    classes = torch.tensor([0, 1, 4])
    save_file(
        {"latents": latents, "class_labels": classes}
        | {
            f"clipped_{clipped}".lower(): trajectory(model, scheduler, latents, classes, 10, clipped=clipped)[-1]
            for clipped in (False, True)
        },
        HERE / "velocity_trajectories.safetensors",
    )

    digits = UNet2DModel.from_pretrained(DIGITS).eval()
    timesteps, classes = [0, 1, 99, 500, 998, 999], [0, 9, 10, 3, 10, 7]
    save_file(calls(digits, timesteps, classes, seed=30), HERE / "digits_predict.safetensors")

    latents = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(31))
    classes = torch.arange(4)
    tensors = {"latents": latents, "class_labels": classes}
    config = DDIMScheduler.from_pretrained(DIGITS).config
    for spacing in ("leading", "linspace", "trailing"):
        scheduler = DDIMScheduler.from_config(config, timestep_spacing=spacing)
        for steps in (10, 20, 50):
            tensors[f"{spacing}_{steps}"] = trajectory(digits, scheduler, latents, classes, steps)[-1]
    scheduler = DDIMScheduler.from_config(config)
    tensors["own_10_all"] = torch.stack(trajectory(digits, scheduler, latents, classes, 10))
    tensors["guided_20"] = trajectory(digits, scheduler, latents, classes, 20, guidance=2.0, clipped=True)[-1]
    tensors["eta_noise"] = torch.randn((10, 4, 1, 8, 8), generator=torch.Generator().manual_seed(32))
    tensors["eta_10"] = trajectory(
        digits, scheduler, latents, classes, 10, eta=0.7, noise=tensors["eta_noise"]
    )[-1]
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "digits_trajectories.safetensors")

    (HERE / "schedules.json").write_text(json.dumps(schedules(), separators=(",", ":")) + "\n")
    schedule.write()
    original.write()


if __name__ == "__main__":
    main()
