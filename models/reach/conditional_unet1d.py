"""The conditional 1-D U-Net of diffusion policies (Chi et al., 2023, arXiv:2303.04137), as two projects lay it out.

`ConditionalUnet1d(..., layout="lerobot")` has the state dict of LeRobot's `DiffusionConditionalUnet1d`,
`layout="diffusion_policy"` that of diffusion_policy's `ConditionalUnet1D`: the same mathematics under other names.
Trains the shipped policy and is the oracle of the importer's tests.
"""

import math

import torch
from torch import nn


class Sinusoid(nn.Module):
    """Sines, then cosines, of the timestep at frequencies from 1 down to 1/10,000, both included."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        half = self.channels // 2
        frequency = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, dtype=torch.float32))
        angle = timestep.float()[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class ConvBlock(nn.Module):
    """Convolution, group normalization, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        super().__init__()
        convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(groups, outputs), nn.Mish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two blocks, the conditioning vector between them, and the input beside them."""

    def __init__(self, inputs: int, outputs: int, conditioning: int, options: dict):
        super().__init__()
        kernel, groups = options["kernel_size"], options["n_groups"]
        self.is_scaled, self.is_listed = options["scale"], options["layout"] == "diffusion_policy"
        first = ConvBlock(inputs, outputs, kernel, groups)
        second = ConvBlock(outputs, outputs, kernel, groups)
        if self.is_listed:
            self.blocks = nn.ModuleList([first, second])
        else:
            self.conv1, self.conv2 = first, second
        width = 2 * outputs if self.is_scaled else outputs
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(conditioning, width))
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        first, second = self.blocks if self.is_listed else (self.conv1, self.conv2)
        hidden = first(x)
        projected = self.cond_encoder(conditioning)[:, :, None]
        if self.is_scaled:
            scale, shift = projected.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + projected
        return second(hidden) + self.residual_conv(x)


class Wrapped(nn.Module):
    """A convolution under the name `conv`."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class ConditionalUnet1d(nn.Module):
    """Predicts from a noisy trajectory (batch, horizon, actions), a timestep and an observation (batch, length)."""

    def __init__(
        self,
        action_dim: int,
        global_cond_dim: int,
        down_dims: tuple[int, ...],
        kernel_size: int = 5,
        n_groups: int = 8,
        step_embed_dim: int = 128,
        scale: bool = True,
        layout: str = "lerobot",
    ):
        super().__init__()
        options = {"kernel_size": kernel_size, "n_groups": n_groups, "scale": scale, "layout": layout}
        conditioning = step_embed_dim + global_cond_dim
        named = Wrapped if layout == "diffusion_policy" else lambda conv: conv
        self.diffusion_step_encoder = nn.Sequential(
            Sinusoid(step_embed_dim),
            nn.Linear(step_embed_dim, 4 * step_embed_dim),
            nn.Mish(),
            nn.Linear(4 * step_embed_dim, step_embed_dim),
        )
        block = lambda inputs, outputs: ResidualBlock(inputs, outputs, conditioning, options)
        widths = list(zip((action_dim, *down_dims[:-1]), down_dims))
        self.down_modules, self.up_modules = nn.ModuleList(), nn.ModuleList()
        for level, (inputs, outputs) in enumerate(widths):
            is_last = level + 1 == len(widths)
            down = nn.Identity() if is_last else named(nn.Conv1d(outputs, outputs, 3, 2, 1))
            self.down_modules.append(nn.ModuleList([block(inputs, outputs), block(outputs, outputs), down]))
        middle = down_dims[-1]
        self.mid_modules = nn.ModuleList([block(middle, middle), block(middle, middle)])
        for outputs, inputs in reversed(widths[1:]):
            up = named(nn.ConvTranspose1d(outputs, outputs, 4, 2, 1))
            self.up_modules.append(nn.ModuleList([block(2 * inputs, outputs), block(outputs, outputs), up]))
        last = ConvBlock(down_dims[0], down_dims[0], kernel_size, n_groups)
        self.final_conv = nn.Sequential(last, nn.Conv1d(down_dims[0], action_dim, 1))

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, global_cond: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = sample.transpose(1, 2)
        conditioning = self.diffusion_step_encoder(timestep)
        if global_cond is not None:
            conditioning = torch.cat([conditioning, global_cond], dim=1)
        skips = []
        for first, second, down in self.down_modules:
            x = second(first(x, conditioning), conditioning)
            skips.append(x)
            x = down(x)
        for block in self.mid_modules:
            x = block(x, conditioning)
        for first, second, up in self.up_modules:
            x = torch.cat([x, skips.pop()], dim=1)
            x = up(second(first(x, conditioning), conditioning))
        return self.final_conv(x).transpose(1, 2)
