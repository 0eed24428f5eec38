# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "scikit-learn>=1.5", "numpy", "safetensors"]
# ///
"""Trains the class-conditional digits model and saves it in diffusers' layout.

Data: scikit-learn's 1,797 real 8x8 digits, scaled to [-1, 1]. Network: `UNet2DModel`, channels (16, 32), one layer a
block, attention at the lower level, eleven classes of which the last means "no class" (classifier-free guidance:
one label in ten is replaced by it during training). Noise: the cosine schedule, epsilon prediction. The saved weights
are the exponential moving average.

    python models/digits/train.py                 # about ten minutes on two cores
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from sklearn.datasets import load_digits

NO_CLASS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels = torch.tensor(digits.target)

    model = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=NO_CLASS + 1,
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        clip_sample=True,
        # Pure noise, where trailing spacing starts, tells the network nothing; 19 is the highest offset that 50 steps take.
        timestep_spacing="leading",
        steps_offset=19,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=1e-4)

    def rate(step: int) -> float:
        warmup = min(1.0, (step + 1) / 200)
        return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    started = time.time()
    running = 0.0
    for step in range(args.steps):
        pick = torch.randint(len(images), (args.batch,))
        clean = images[pick]
        classes = torch.where(torch.rand(args.batch) < 0.1, NO_CLASS, labels[pick])
        noise = torch.randn_like(clean)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (args.batch,))
        predicted = model(scheduler.add_noise(clean, noise, timesteps), timesteps, class_labels=classes).sample
        loss = torch.nn.functional.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        # The average forgets its beginning quickly and then slows down.
        decay = min(0.9995, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        running += (loss.item() - running) * max(0.01, 1 / (step + 1))
        if (step + 1) % 100 == 0:
            speed = (step + 1) / (time.time() - started)
            print(f"step {step + 1}/{args.steps}  loss {running:.4f}  {speed:.1f} steps/s", flush=True)

    model.load_state_dict(average)
    model.save_pretrained(args.out)
    scheduler.save_config(args.out)
    defaults = {
        "name": "digits",
        "steps": [10, 20, 50],
        "unconditional_class": NO_CLASS,
        "use_clipped_model_output": True,
        "provenance": "waft models/digits/train.py on scikit-learn digits (UCI, CC BY 4.0); weights MIT OR Apache-2.0",
    }
    (args.out / "waft.json").write_text(json.dumps(defaults, indent=2) + "\n")
    print(f"saved {sum(p.numel() for p in model.parameters())} parameters to {args.out}")


if __name__ == "__main__":
    main()
