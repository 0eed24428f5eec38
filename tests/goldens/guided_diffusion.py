# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "safetensors"]
# ///
"""Writes checkpoints in the layout of OpenAI's UNetModel, and what three calls of each give.

    python tests/goldens/guided_diffusion.py

The network is written here anew from its papers (Nichol and Dhariwal, 2021, arXiv:2102.09672; Dhariwal and Nichol, 2021,
arXiv:2105.05233); only the names of its modules are those of improved-diffusion and guided-diffusion, because checkpoints
have them. All normalizations have 32 groups, so 32 channels are the fewest.
"""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


class Resampled(nn.Module):
    """Halves or doubles a map, by a convolution."""

    def __init__(self, channels: int, double: bool):
        super().__init__()
        self.double = double
        if double:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        else:
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, _):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")) if self.double else self.op(x)


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int, scale_shift: bool, resample: str | None = None):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(norm(outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def resampled(self, x):
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample == "up" else x

    def forward(self, x, embedding):
        h = self.in_layers[2](self.resampled(self.in_layers[:2](x)))
        e = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(self.resampled(x)) + h


class AttentionBlock(nn.Module):
    def __init__(self, channels: int, heads: int, by_part: bool):
        super().__init__()
        self.heads, self.by_part = heads, by_part
        self.norm, self.qkv, self.proj_out = norm(channels), nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x, _):
        n, c, *size = x.shape
        width = c // self.heads
        qkv = self.qkv(self.norm(x.reshape(n, c, -1)))
        if self.by_part:
            q, k, v = (part.reshape(n, self.heads, width, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(n, self.heads, 3, width, -1).unbind(2)
        weights = torch.einsum("nhdi,nhdj->nhij", q, k).div(math.sqrt(width)).softmax(-1)
        context = torch.einsum("nhij,nhdj->nhdi", weights, v).reshape(n, c, -1)
        return x + self.proj_out(context).reshape(n, c, *size)


class Block(nn.Sequential):
    def forward(self, x, embedding):
        for module in self:
            x = module(x) if isinstance(module, nn.Conv2d) else module(x, embedding)
        return x


class UNetModel(nn.Module):
    def __init__(self, inputs, outputs, channels, layers, attention, heads, classes, scale_shift, by_part, updown):
        super().__init__()
        self.channels = channels[0]
        embedding = 4 * channels[0]
        self.time_embed = nn.Sequential(nn.Linear(channels[0], embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if classes:
            self.label_emb = nn.Embedding(classes, embedding)

        def resnet(inputs, outputs, resample=None):
            return ResBlock(inputs, outputs, embedding, scale_shift, resample)

        def attend(level, width):
            return [AttentionBlock(width, heads(width), by_part)] if level in attention else []

        width, kept = channels[0], [channels[0]]
        down = [Block(nn.Conv2d(inputs, width, 3, padding=1))]
        for level, outgoing in enumerate(channels):
            for _ in range(layers):
                down.append(Block(resnet(width, outgoing), *attend(level, outgoing)))
                width = outgoing
                kept.append(width)
            if level + 1 < len(channels):
                down.append(Block(resnet(width, width, "down") if updown else Resampled(width, False)))
                kept.append(width)
        self.input_blocks = nn.ModuleList(down)
        self.middle_block = Block(resnet(width, width), AttentionBlock(width, heads(width), by_part), resnet(width, width))
        up = []
        for level in reversed(range(len(channels))):
            for layer in range(layers + 1):
                modules = [resnet(width + kept.pop(), channels[level])]
                width = channels[level]
                modules += attend(level, width)
                if level > 0 and layer == layers:
                    modules.append(resnet(width, width, "up") if updown else Resampled(width, True))
                up.append(Block(*modules))
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x, timesteps, labels=None):
        half = self.channels // 2
        angles = timesteps[:, None].float() * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        if labels is not None:
            embedding = embedding + self.label_emb(labels)
        kept = []
        for block in self.input_blocks:
            x = block(x, embedding)
            kept.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], dim=1), embedding)
        return self.out(x)


MODELS = {
    # guided-diffusion as its image models are: classes, variances, residual blocks that resample, heads of equal width.
    "guided_diffusion": (
        dict(inputs=1, outputs=2, channels=(32, 32), layers=1, attention={1}, heads=lambda width: width // 8, classes=3,
             scale_shift=True, by_part=False, updown=True),
        {"image_size": 4, "num_head_channels": 8, "use_new_attention_order": False, "learn_sigma": True},
    ),
    # improved-diffusion: the embedding is added, convolutions resample, a number of heads.
    "improved_diffusion": (
        dict(inputs=1, outputs=1, channels=(32, 32), layers=1, attention={0}, heads=lambda width: 2, classes=None,
             scale_shift=False, by_part=True, updown=False),
        {"image_size": [4, 6], "num_heads": 2, "use_new_attention_order": True},
    ),
}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for seed, (name, (structure, options)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = UNetModel(**structure).eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        # Half precision keeps the file small.
        model = model.half().float()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        torch.save({key: tensor.half() for key, tensor in model.state_dict().items()}, folder / "model.pt")
        config = {"_class_name": "guided_diffusion.UNetModel"} | options
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        size = options["image_size"]
        height, width = (size, size) if isinstance(size, int) else size
        tensors = {
            "sample": torch.randn(3, structure["inputs"], height, width),
            "timestep": torch.tensor([0, 999, 421]),
        }
        if structure["classes"]:
            tensors["class_labels"] = torch.tensor([0, 2, 1])
        out = model(tensors["sample"], tensors["timestep"], tensors.get("class_labels"))
        save_file(tensors | {"out": out.contiguous()}, HERE / f"{name}_predict.safetensors")


if __name__ == "__main__":
    main()
