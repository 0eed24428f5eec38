# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.30", "safetensors"]
# ///
"""The peer of `cargo xtask bench cuda`: diffusers' UNet2DModel in half precision, channels last, compiled and captured in
a CUDA graph, with its own scheduler, at the best of the given batches. Prints one JSON object."""

import argparse
import json
import time

import torch
from diffusers import DDIMScheduler, UNet2DModel

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint")
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("--batches", required=True)
parser.add_argument("--device", default="cuda")
arguments = parser.parse_args()
device = torch.device(arguments.device)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.benchmark = True

unet = UNet2DModel.from_pretrained(arguments.checkpoint, torch_dtype=torch.float16).to(device).eval()
unet = unet.to(memory_format=torch.channels_last)
scheduler = DDIMScheduler.from_pretrained(arguments.checkpoint)
scheduler.set_timesteps(arguments.steps)
classes = unet.config.num_class_embeds
# CUDA graphs come with "max-autotune"; plain kernels if the compiler is not there.
compiled = torch.compile(unet, mode="max-autotune" if device.type == "cuda" else "default")


def synchronize():
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def draw(model, count):
    shape = (count, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    sample = torch.randn(shape, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
    labels = torch.arange(count, device=device) % (classes - 1) if classes else None
    for timestep in scheduler.timesteps.tolist():
        times = torch.full((count,), timestep, device=device, dtype=torch.long)
        noise = model(sample, times, class_labels=labels).sample.clone()
        sample = scheduler.step(noise, timestep, sample).prev_sample.to(memory_format=torch.channels_last)
    return ((sample.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def rate(model, count):
    draw(model, count)
    synchronize()
    started = time.perf_counter()
    for _ in range(arguments.repeat):
        draw(model, count)
    synchronize()
    return arguments.repeat * count / (time.perf_counter() - started)


rates = []
for count in map(int, arguments.batches.split(",")):
    for name, model in (("compiled", compiled), ("eager", unet)):
        try:
            rates.append({"batch": count, "mode": name, "pictures_per_second": rate(model, count)})
        except Exception as error:  # Out of memory, or no compiler: the other mode counts.
            rates.append({"batch": count, "mode": name, "error": f"{type(error).__name__}: {error}"[:200]})
measured = [entry for entry in rates if "pictures_per_second" in entry]
best = max(measured, key=lambda entry: entry["pictures_per_second"], default=None)

# What the tensor cores reach with bytes, on a product that is large enough.
fastest = None
if device.type == "cuda":
    size = 8192
    a = torch.randint(-128, 127, (size, size), device=device, dtype=torch.int8)
    b = torch.randint(-128, 127, (size, size), device=device, dtype=torch.int8).t()
    for _ in range(3):
        torch._int_mm(a, b)
    synchronize()
    started = time.perf_counter()
    for _ in range(10):
        torch._int_mm(a, b)
    synchronize()
    fastest = 10 * size**3 / (time.perf_counter() - started)

print(
    json.dumps(
        {
            "torch": torch.__version__,
            "pictures_per_second": best and best["pictures_per_second"],
            "batch": best and best["batch"],
            "mode": best and best["mode"],
            "rates": rates,
            "int8_macs_per_second": fastest,
        }
    )
)
