# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "scikit-learn>=1.5", "safetensors"]
# ///
"""Trains the noise-aware classifier of the digits for classifier guidance (Dhariwal and Nichol, 2021, arXiv:2105.05233,
section 4) and saves it as `waft export-weights --classifier` reads it.

Data and noise: those of `train.py`, whose scheduler configuration is read and kept in the classifier's own, so that the exporter
refuses a classifier of other noise levels. Network: three convolutions, each shifted by a projection of the time embedding
and activated, the second behind it averaged over 2x2 pixels, and a linear layer over what is left.

    python models/digits/train_classifier.py      # about two minutes on one core
"""

import argparse
import json
import math
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).parent


class Classifier(nn.Module):
    """Logits of (N, C, H, W) noisy pictures and (N) timesteps."""

    def __init__(self, size: int, inputs: int, channels: list[int], pools: list[bool], embedding: int, classes: int):
        super().__init__()
        self.pools = pools
        self.embedding = embedding
        self.time = nn.Linear(embedding, embedding)
        ins = [inputs, *channels[:-1]]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(ins, channels))
        self.times = nn.ModuleList(nn.Linear(embedding, o) for o in channels)
        size >>= sum(pools)
        self.head = nn.Linear(channels[-1] * size * size, classes)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        silu = nn.functional.silu
        embedded = silu(self.time(get_timestep_embedding(timesteps, self.embedding, flip_sin_to_cos=True, downscale_freq_shift=0)))
        for conv, time, pool in zip(self.convs, self.times, self.pools):
            x = conv(x)
            if pool:
                x = nn.functional.avg_pool2d(x, 2)
            x = silu(x + time(embedded)[:, :, None, None])
        return self.head(x.flatten(1))


def load(folder: Path) -> Classifier:
    """The classifier that a folder holds."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    model = Classifier(
        config["sample_size"], config["in_channels"], config["channels"], config["pools"], config["time_embedding_dim"],
        config["num_classes"],
    )
    model.load_state_dict(load_file(folder / "classifier.safetensors"))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "guide")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target)
    # A fifth is kept to tell the accuracy by.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))
    held, trained = order[: len(order) // 5], order[len(order) // 5 :]

    config = {
        "sample_size": 8,
        "in_channels": 1,
        "channels": [16, 32, 32],
        "pools": [False, True, False],
        "time_embedding_dim": 32,
        "num_classes": 10,
        "scheduler": json.loads((args.checkpoint / "scheduler_config.json").read_text()),
    }
    model = Classifier(8, 1, config["channels"], config["pools"], config["time_embedding_dim"], 10)
    scheduler = DDIMScheduler.from_pretrained(args.checkpoint)
    timesteps_of = scheduler.config.num_train_timesteps
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.05)
    rate = lambda step: min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step in range(args.steps):
        pick = trained[torch.randint(len(trained), (args.batch,))]
        timesteps = torch.randint(timesteps_of, (args.batch,))
        noisy = scheduler.add_noise(images[pick], torch.randn_like(images[pick]), timesteps)
        loss = nn.functional.cross_entropy(model(noisy, timesteps), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 1000 == 0:
            print(f"step {step + 1}/{args.steps}  loss {loss.item():.4f}", flush=True)

    model.eval()
    print("accuracy on the pictures that were kept, by timestep")
    with torch.no_grad():
        for timestep in [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]:
            right = 0.0
            for _ in range(20):
                timesteps = torch.full((len(held),), timestep)
                noisy = scheduler.add_noise(images[held], torch.randn_like(images[held]), timesteps)
                right += (model(noisy, timesteps).argmax(1) == labels[held]).float().mean().item() / 20
            print(f"{timestep:5d}  {100 * right:.1f} %")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, args.out / "classifier.safetensors")
    print(f"saved {sum(p.numel() for p in model.parameters())} parameters to {args.out}")


if __name__ == "__main__":
    main()
