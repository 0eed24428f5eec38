# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Writes checkpoints of diffusers' `UNet1DModel` with random weights, three calls of each, and what DDIM draws.

    python tests/goldens/unet1d.py
"""

import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet1DModel
from safetensors.torch import save_file

HERE = Path(__file__).parent

CHECKPOINTS = {
    # As Dance Diffusion's: the time's channels beside the sample's, filters with reflected ends, attention.
    "unet1d_sound": dict(
        sample_size=24, in_channels=2, out_channels=2, extra_in_channels=6, time_embedding_dim=6,
        block_out_channels=(32, 32), down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip"),
    ),
    # As Diffuser's: trajectories, residual blocks that the timestep conditions.
    "unet1d_trajectory": dict(
        sample_size=16, in_channels=3, out_channels=3, time_embedding_type="positional", use_timestep_embedding=True,
        flip_sin_to_cos=False, freq_shift=1, act_fn="mish", block_out_channels=(8, 16, 16), norm_num_groups=4,
        down_block_types=("DownResnetBlock1D",) * 3, up_block_types=("UpResnetBlock1D",) * 2,
        mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock",
    ),
}


@torch.no_grad()
def write(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, folder = UNet1DModel(**CHECKPOINTS[name]).eval(), HERE / name
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
        # Weights that half precision has.
        parameter.copy_(parameter.half())
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    model = model.float()
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.save_config(folder)
    shape = (3, model.config.in_channels, model.config.sample_size)
    sample, timestep = torch.randn(shape), torch.tensor([0, 999, 421])
    calls = {"sample": sample, "timestep": timestep, "out": model(sample, timestep).sample.contiguous()}
    save_file(calls, HERE / f"{name}_predict.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    for seed, name in enumerate(CHECKPOINTS):
        write(name, 90 + seed)


if __name__ == "__main__":
    main()
