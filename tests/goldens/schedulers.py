"""diffusers' schedulers by waft's names, and a run of one: for the goldens, and for tests/diffusers/sweep.py."""

import sys
from unittest import mock

import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "ddim-inverse": DDIMInverseScheduler,
    "ddpm": DDPMScheduler,
    "dpm-solver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "lcm": LCMScheduler,
    "flow-match-euler": FlowMatchEulerDiscreteScheduler,
    "edm-euler": EDMEulerScheduler,
    "consistency": CMStochasticIterativeScheduler,
}


def run(scheduler, sample: torch.Tensor, predict, noise, options: dict) -> torch.Tensor:
    """The sample behind the last step. `sample` is standard noise; `predict` gives the network's output for the number of the
    call, its input and the timestep, `noise` the noise of a call, `options` what a step takes besides."""
    module, dtype = sys.modules[type(scheduler).__module__], sample.dtype
    takes_noise = isinstance(scheduler, (DDIMScheduler, DPMSolverMultistepScheduler))
    sample = sample * getattr(scheduler, "init_noise_sigma", 1.0)
    scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
    for index, t in enumerate(scheduler.timesteps):
        output, given = predict(index, scale(sample, t), t), noise(index)
        extra = {"variance_noise": given} if takes_noise else {}
        with mock.patch.object(module, "randn_tensor", lambda *_, **__: given, create=True):
            sample = scheduler.step(output, t, sample, **extra, **options).prev_sample
        # Where doubles are asked for, none is lost.
        assert sample.dtype == torch.float64 or dtype == torch.float32
        sample = sample.to(dtype)
    return sample
