# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "torch-fidelity>=0.3", "prdc>=0.2", "scikit-image>=0.24", "scipy>=1.13", "numpy", "safetensors"]
# ///
"""Writes `metrics.safetensors`: what well-known implementations say of random features and pictures.

    python tests/goldens/metrics.py

Fréchet distance and Inception Score by torch-fidelity (the distance also by scipy's `sqrtm`, which must agree), precision
and recall by prdc, SSIM by scikit-image.
"""

from pathlib import Path

import numpy as np
import torch
from prdc import compute_prdc
from safetensors.numpy import save_file
from scipy.linalg import sqrtm
from skimage.metrics import structural_similarity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

random = np.random.default_rng(0)
mix = random.normal(size=(6, 6))
real = random.normal(size=(150, 6)) @ mix
fake = random.normal(size=(120, 6)) @ (mix + 0.2 * random.normal(size=(6, 6))) + 0.3
logits = 2 * random.normal(size=(120, 5))
pictures = random.uniform(-1, 1, size=(4, 12, 9, 3)).astype(np.float32)
noisy = (pictures + random.normal(scale=0.3, size=pictures.shape)).clip(-1, 1).astype(np.float32)
tiny = random.uniform(-1, 1, size=(2, 8, 8, 1)).astype(np.float32)
tiny_noisy = (tiny + random.normal(scale=0.1, size=tiny.shape)).clip(-1, 1).astype(np.float32)

statistics = [fid_features_to_statistics(torch.tensor(x)) for x in (fake, real)]
fid = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
first, second = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
by_scipy = ((fake.mean(0) - real.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
assert abs(fid - by_scipy) < 1e-8 * by_scipy, (fid, by_scipy)
score = isc_features_to_metric(torch.tensor(logits), splits=1, shuffle=False)["inception_score_mean"]
manifold = compute_prdc(real, fake, nearest_k=3)


def similarity(a, b):
    return [structural_similarity(x, y, data_range=2, channel_axis=2) for x, y in zip(a, b)]


def f32(values):
    return np.array(values, dtype=np.float32)


# Inputs are stored in f64 as the implementations saw them: pairs of f32, high part and rest.
def split(name, values):
    high = f32(values)
    return {name: high, f"{name}.rest": f32(values - high)}


save_file(
    {
        **split("real", real),
        **split("fake", fake),
        **split("logits", logits),
        "pictures": pictures,
        "noisy": noisy,
        "tiny": tiny,
        "tiny_noisy": tiny_noisy,
        "fid": f32([fid]),
        "inception_score": f32([score]),
        "precision": f32([manifold["precision"]]),
        "recall": f32([manifold["recall"]]),
        "ssim": f32(similarity(pictures, noisy)),
        "ssim_tiny": f32(similarity(tiny, tiny_noisy)),
    },
    Path(__file__).parent / "metrics.safetensors",
)
print(fid, score, manifold)
