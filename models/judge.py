# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "scikit-learn>=1.5", "pillow>=10", "numpy", "safetensors"]
# ///
"""Trains the small classifier whose features `cargo xtask quality` compares pictures by, on a model's training data.

    python models/judge.py digits                 # seconds
    python models/judge.py emoji                  # a minute or two; needs what models/emoji/emoji.py needs

Network: 3x3 convolutions with ReLU, the first of stride 1, the others of stride 2; the result, in (channel, row, column)
order, goes through a linear layer with ReLU, whose outputs are the features, and another linear layer to the logits.
Inputs are pictures in [-1, 1]. Training shifts, mirrors (where the model's training does) and adds noise; a held-out
fifth, which the shipped classifier has seen too, tells how well it generalizes.

`judge.safetensors` holds, in f16 but for the last: `conv.N.weight` (out, in, 3, 3) and `conv.N.bias`, `features.weight`,
`features.bias`, `logits.weight`, `logits.bias`; `real.features` (N, F) of the training data; `probe.images`, some training
pictures as u8 in (N, row, column, channel) order, with `probe.features` and `probe.logits` in f32, to check other
implementations by.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

CONVOLUTIONS = {"digits": [16, 32], "emoji": [16, 32, 64, 64]}
FEATURES = 64


class Judge(nn.Module):
    def __init__(self, channels: list[int], inputs: int, size: int, classes: int):
        super().__init__()
        pairs = zip([inputs, *channels], channels)
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1) for i, (a, b) in enumerate(pairs)
        )
        side = size >> (len(channels) - 1)
        self.features = nn.Linear(channels[-1] * side * side, FEATURES)
        self.logits = nn.Linear(FEATURES, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv in self.conv:
            x = conv(x).relu()
        features = self.features(x.flatten(1)).relu()
        return features, self.logits(nn.functional.dropout(features, 0.3, self.training))


def load(name: str, here: Path) -> tuple[torch.Tensor, torch.Tensor, int, bool]:
    """Pictures (N, C, H, W) in [-1, 1], labels, number of classes, whether mirrored pictures are as good."""
    if name == "digits":
        from sklearn.datasets import load_digits

        data = load_digits()
        images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
        return images, torch.tensor(data.target), 10, False
    sys.path.insert(0, str(here / "emoji"))
    import emoji

    images, labels, _ = emoji.load()
    return images, labels, emoji.NO_CLASS, True


def augment(x: torch.Tensor, mirror: bool) -> torch.Tensor:
    if mirror:
        x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    reach = max(1, x.shape[-1] // 10)
    shift = torch.randint(-reach, reach + 1, (2,)).tolist()
    padded = nn.functional.pad(x, [reach] * 4, mode="replicate")
    rows, columns = reach + shift[0], reach + shift[1]
    x = padded[:, :, rows : rows + x.shape[2], columns : columns + x.shape[3]]
    return x + torch.randn_like(x) * torch.rand(len(x), 1, 1, 1) * 0.2


def fit(images, labels, classes, mirror, channels, steps) -> Judge:
    judge = Judge(channels, images.shape[1], images.shape[-1], classes)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    weight = len(labels) / (classes * labels.bincount(minlength=classes).clamp(min=1).float())
    for _ in range(steps):
        pick = torch.randint(len(images), (128,))
        _, logits = judge(augment(images[pick], mirror))
        loss = nn.functional.cross_entropy(logits, labels[pick], weight=weight, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


@torch.no_grad()
def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(CONVOLUTIONS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels, classes, mirror = load(args.model, here)
    images = ((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    channels = CONVOLUTIONS[args.model]

    order = torch.randperm(len(images))
    held, rest = order[: len(order) // 5], order[len(order) // 5 :]
    with torch.enable_grad():
        generalizes = fit(images[rest], labels[rest], classes, mirror, channels, args.steps)
        judge = fit(images, labels, classes, mirror, channels, args.steps)
    accuracy = lambda net, pick: (net(images[pick])[1].argmax(1) == labels[pick]).float().mean().item()
    print(f"held-out fifth: {accuracy(generalizes, held):.4f}, shipped on all it was trained on: {accuracy(judge, order):.4f}")

    # What is shipped has 16 bits; features and probes are those of what is shipped.
    judge.half().float()
    probe = images[:: max(1, len(images) // 16)][:16]
    probe_features, probe_logits = judge(probe)
    tensors = {name: value.half() for name, value in judge.state_dict().items()}
    tensors["real.features"] = judge(images)[0].half()
    tensors["probe.images"] = ((probe + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    tensors["probe.features"], tensors["probe.logits"] = probe_features, probe_logits
    path = args.out or here / args.model / "judge.safetensors"
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
