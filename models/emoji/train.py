# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "pillow>=10", "numpy", "safetensors"]
# ///
"""Trains the class-conditional emoji model and saves it in diffusers' layout.

Data: see `emoji.py`. Network: `UNet2DModel`, 32x32 RGB, channels (16, 48, 96), one layer a block, attention at 8x8,
nine classes of which the last means "no class" (one label in ten is replaced by it). Noise: the cosine schedule,
rescaled to zero terminal SNR, and v-prediction, whose errors are not amplified where the signal is weak (Salimans and
Ho, 2022, arXiv:2202.00512; Lin et al., 2024, arXiv:2305.08891). The saved weights are the exponential moving average.

    python models/emoji/train.py                  # about an hour and a half on two cores

A run that was stopped goes on from its last state with the same command.
"""

import argparse
import json
import time
from pathlib import Path

import emoji
import torch
from diffusers import DDIMScheduler, UNet2DModel


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=here / "checkpoint")
    parser.add_argument("--state", type=Path, default=here / "training.pt", help="kept every 250 steps, to go on from")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels, _ = emoji.load()
    print(f"{len(images)} emoji, by class: {labels.bincount().tolist()}", flush=True)
    images, labels = images.to(device), labels.to(device)

    model = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=emoji.NO_CLASS + 1,
    ).to(device, memory_format=torch.channels_last)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=1e-4)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    first = 0
    if args.state.exists():
        state = torch.load(args.state, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
        print(f"going on after step {first}", flush=True)

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step}
        partial = args.state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(args.state)

    started = time.time()
    running = 0.0
    for step in range(first, args.steps):
        # Every step draws from its own seed, so that a resumed run is the same run.
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        pick = torch.randint(len(images), (args.batch,), generator=generator)
        flip = torch.rand(args.batch, generator=generator) < 0.5
        drop = torch.rand(args.batch, generator=generator) < 0.1
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (args.batch,), generator=generator)
        noise = torch.randn(args.batch, *images.shape[1:], generator=generator)
        pick, flip, drop, timesteps, noise = (x.to(device) for x in (pick, flip, drop, timesteps, noise))
        clean = torch.where(flip[:, None, None, None], images[pick].flip(3), images[pick])
        classes = torch.where(drop, emoji.NO_CLASS, labels[pick])
        noisy = scheduler.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)

        # Warm-up, constant, and down to zero over the last quarter.
        left = (args.steps - step) / (args.steps / 4)
        optimizer.param_groups[0]["lr"] = args.learning_rate * min(1.0, (step + 1) / 200, left)
        predicted = model(noisy, timesteps, class_labels=classes).sample
        loss = torch.nn.functional.mse_loss(predicted, scheduler.get_velocity(clean, noise, timesteps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        running += (loss.item() - running) * max(0.01, 1 / (step - first + 1))
        if (step + 1) % 50 == 0:
            speed = (step + 1 - first) / (time.time() - started)
            print(f"step {step + 1}/{args.steps}  loss {running:.4f}  {speed:.2f} steps/s", flush=True)
        if (step + 1) % 250 == 0:
            save(step + 1)

    model.load_state_dict(average)
    model.to("cpu", memory_format=torch.contiguous_format).save_pretrained(args.out)
    scheduler.save_config(args.out)
    defaults = {
        "name": "emoji",
        "steps": [20, 50],
        "unconditional_class": emoji.NO_CLASS,
        "use_clipped_model_output": True,
        "provenance": "waft models/emoji/train.py on Noto Color Emoji (Google, OFL 1.1); weights MIT OR Apache-2.0",
    }
    (args.out / "waft.json").write_text(json.dumps(defaults, indent=2) + "\n")
    args.state.unlink(missing_ok=True)
    print(f"saved {sum(p.numel() for p in model.parameters())} parameters to {args.out}")


if __name__ == "__main__":
    main()
