# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.30", "safetensors", "onnx", "onnxscript", "onnxruntime", "openvino"]
# ///
"""The peers of `cargo xtask bench host`.

`make NAME FOLDER` writes a checkpoint of random weights; `serve CHECKPOINT THREADS WORK` loads a checkpoint into PyTorch, ONNX
Runtime and OpenVINO, prints which of them it has, and then measures one for each line that it reads."""

import json
import os
import sys
import time

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel

NETWORKS = {
    "w2": dict(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ),
    # The configuration of google/ddpm-cifar10-32.
    "w3": dict(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=32,
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ),
}


def say(value):
    print("waft-bench " + json.dumps(value), flush=True)


def make(name, folder):
    torch.manual_seed(1)
    UNet2DModel(**NETWORKS[name]).eval().save_pretrained(folder)
    DDIMScheduler().save_pretrained(folder)


def serve(checkpoint, threads, work):
    torch.set_num_threads(threads)
    unet = UNet2DModel.from_pretrained(checkpoint).eval()
    config = unet.config
    rows, columns = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
    shape = (threads, config.in_channels, rows, columns)
    generator = np.random.default_rng(1)
    feeds = {
        "sample": generator.standard_normal(shape).astype(np.float32),
        "timestep": np.full((threads,), 500, dtype=np.int64),
    }
    if config.num_class_embeds:
        feeds["class_labels"] = np.zeros((threads,), dtype=np.int64)
    tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, sample, timestep, class_labels=None):
            return self.unet(sample, timestep, class_labels=class_labels).sample

    network = Network().eval()
    float_path = os.path.join(work, "peer-f32.onnx")
    int8_path = os.path.join(work, "peer-int8.onnx")
    peers, failed, versions = [], {}, {"torch": torch.__version__}

    def attempt(name, build):
        try:
            call = build()
            call()
            peers.append((name, call))
        except Exception as error:  # The others count all the same.
            failed[name] = f"{type(error).__name__}: {error}"[:400]

    def pytorch():
        def call():
            with torch.inference_mode():
                return network(**tensors)

        return call

    def onnx_runtime(path):
        import onnxruntime

        versions["onnxruntime"] = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, feeds)

    def openvino(path, precision):
        import openvino

        versions["openvino"] = openvino.__version__
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision:
            settings["INFERENCE_PRECISION_HINT"] = precision
        request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        return lambda: request.infer(feeds, share_inputs=True)

    def export():
        torch.onnx.export(
            network,
            tuple(tensors.values()),
            float_path,
            input_names=list(tensors),
            output_names=["out"],
            opset_version=18,
            external_data=False,
            dynamo=True,
        )

    def quantize():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self):
                self.left = [dict(feeds, sample=generator.standard_normal(shape).astype(np.float32)) for _ in range(4)]

            def get_next(self):
                return self.left.pop() if self.left else None

        prepared = os.path.join(work, "peer-prepared.onnx")
        quant_pre_process(float_path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8_path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        )

    attempt("PyTorch f32", pytorch)
    try:
        export()
        attempt("ONNX Runtime f32", lambda: onnx_runtime(float_path))
        attempt("OpenVINO f32", lambda: openvino(float_path, "f32"))
        attempt("OpenVINO default", lambda: openvino(float_path, None))
        quantize()
        attempt("ONNX Runtime int8", lambda: onnx_runtime(int8_path))
        attempt("OpenVINO int8", lambda: openvino(int8_path, None))
    except Exception as error:
        failed["ONNX"] = f"{type(error).__name__}: {error}"[:400]
    say({"names": [name for name, _ in peers], "failed": failed, "versions": versions})

    for line in sys.stdin:
        asked = json.loads(line)
        call = peers[asked["peer"]][1]
        call()
        # With one thread the processor's time counts, so that other work on the machine does not.
        clock = time.process_time if threads == 1 else time.perf_counter
        times, started = [], time.perf_counter()
        while time.perf_counter() - started < asked["seconds"] or not times:
            begun = clock()
            call()
            times.append(clock() - begun)
        say({"milliseconds": 1e3 * float(np.median(times)) / threads})


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
    else:
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
