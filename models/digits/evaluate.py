# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "scikit-learn>=1.5", "numpy", "safetensors"]
# ///
"""Judges the digits checkpoint with a classifier that never saw it, and writes that classifier for waft's own tests.

The classifier is a support vector machine with an RBF kernel, trained on all 1,797 real digits (its own accuracy is
measured first on a held-out third). Each row draws 1,000 pictures, 100 a class, with diffusers' DDIM in f32.

    python models/digits/evaluate.py              # prints one JSON object; about two minutes on two cores

`classifier.safetensors` holds scikit-learn's one-against-one machine in f32: `support` (N, 64) vectors in 0..16,
`dual` (9, N) coefficients, `intercept` (45), `count` (10) support vectors a class in order, `gamma` (1). For classes
i < j the decision is `sum over SVs of i of dual[j-1, sv]·k(sv, x) + sum over SVs of j of dual[i, sv]·k(sv, x) +
intercept`, with `k(a, b) = exp(-gamma·|a - b|²)`; positive votes for i. Most votes win, the lower class on a tie.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

NO_CLASS = 10


def new_classifier() -> SVC:
    return SVC(kernel="rbf", C=10, gamma=0.001, decision_function_shape="ovo")


@torch.no_grad()
def draw(model, scheduler, latents, classes, steps, guidance, clipped):
    scheduler.set_timesteps(steps)
    x = latents.clone()
    none = torch.full_like(classes, NO_CLASS)
    for t in scheduler.timesteps:
        predicted = model(x, t, class_labels=classes).sample
        if guidance != 1:
            unconditional = model(x, t, class_labels=none).sample
            predicted = unconditional + guidance * (predicted - unconditional)
        x = scheduler.step(predicted, t, x, use_clipped_model_output=clipped).prev_sample
    return x.clamp(-1, 1)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to pixels (Heusel et al., 2017, equation 6)."""
    mean = a.mean(0) - b.mean(0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(first @ second)
    return float(mean @ mean + np.trace(first + second) - 2 * np.sqrt(np.maximum(values.real, 0)).sum())


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=here / "checkpoint")
    parser.add_argument("--classifier", type=Path, default=here / "classifier.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(2)

    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(digits.data, digits.target, test_size=1 / 3, random_state=0)
    report = {"classifier_held_out": float(new_classifier().fit(train_x, train_y).score(test_x, test_y))}
    classifier = new_classifier().fit(digits.data, digits.target)
    save_file(
        {
            "support": classifier.support_vectors_.astype(np.float32),
            "dual": classifier.dual_coef_.astype(np.float32),
            "intercept": classifier.intercept_.astype(np.float32),
            "count": classifier.n_support_.astype(np.int64),
            "gamma": np.array([0.001], dtype=np.float32),
        },
        args.classifier,
    )

    model = UNet2DModel.from_pretrained(args.checkpoint).eval()
    scheduler = DDIMScheduler.from_pretrained(args.checkpoint)
    latents = torch.randn((1000, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    classes = torch.arange(1000) % 10
    report["rows"] = []
    for steps, guidance, clipped in [
        (10, 1, True),
        (10, 1, False),
        (20, 1, True),
        (10, 2, True),
        (20, 2, True),
        (50, 2, True),
        (20, 2, False),
        (50, 2, False),
    ]:
        images = draw(model, scheduler, latents, classes, steps, guidance, clipped)
        bytes_ = ((images + 1) * 127.5).round()
        pixels = (bytes_ / 255 * 16).reshape(1000, 64).numpy()
        accuracy = float((classifier.predict(pixels) == classes.numpy()).mean())
        row = {"steps": steps, "guidance": guidance, "use_clipped_model_output": clipped, "accuracy": accuracy}
        report["rows"].append(row | {"frechet_pixels": round(frechet(pixels, digits.data), 2)})
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
