//! The layers of `bench kernels`: each in a network of its own, so that what runs is what the exporter and the runtime make
//! of it.

use waft::noise::philox;
use waft_host::graph::{Activation, Conv2d, FrequencyOrder, Graph, Linear, Op, Projection, Shape, TimeEmbedding};

/// A convolution, or a dense layer as one of a single pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    /// What the peer's table calls it.
    pub(crate) name: &'static str,
    /// Side of the kernel and of the square input.
    kernel: usize,
    side: usize,
    stride: usize,
    /// Input and output channels.
    channels: [usize; 2],
    /// Whether a residual is added.
    residual: bool,
    /// Whether all output channels have weights of one scale.
    per_tensor: bool,
}

const fn layer(name: &'static str, kernel: usize, stride: usize, channels: [usize; 2], side: usize) -> Layer {
    Layer { name, kernel, side, stride, channels, residual: false, per_tensor: false }
}

/// A dense layer with one scale for all outputs: to CMSIS-NN a kernel of its own, here the same as with a scale for each.
const fn per_tensor(name: &'static str, channels: [usize; 2]) -> Layer {
    Layer { per_tensor: true, ..layer(name, 1, 1, channels, 1) }
}

/// Those that CMSIS-NN was measured on.
pub(crate) const LAYERS: [Layer; 16] = [
    layer("conv3x3_1x16_8x8", 3, 1, [1, 16], 8),
    layer("conv3x3_16x16_8x8", 3, 1, [16, 16], 8),
    layer("conv3x3_32x32_8x8", 3, 1, [32, 32], 8),
    layer("conv3x3_64x64_4x4", 3, 1, [64, 64], 4),
    layer("conv3x3_3x32_32x32", 3, 1, [3, 32], 32),
    layer("conv3x3_32x32_32x32", 3, 1, [32, 32], 32),
    layer("conv3x3_64x64_16x16", 3, 1, [64, 64], 16),
    layer("conv3x3_128x128_8x8", 3, 1, [128, 128], 8),
    layer("conv3x3_128x64_16x16", 3, 1, [128, 64], 16),
    layer("conv3x3s2_32x32_32x32", 3, 2, [32, 32], 32),
    layer("conv1x1_64x64_16x16", 1, 1, [64, 64], 16),
    layer("conv1x1_128x128_8x8", 1, 1, [128, 128], 8),
    per_tensor("fc_64x256", [64, 256]),
    per_tensor("fc_256x256", [256, 256]),
    layer("fc_pc_64x256", 1, 1, [64, 256], 1),
    layer("fc_pc_256x256", 1, 1, [256, 256], 1),
];

/// The nine convolutions of MLPerf Tiny's ResNet-8, in their order.
pub(super) const RESNET8: [Layer; 9] = [
    layer("conv3x3_3x16_32x32", 3, 1, [3, 16], 32),
    layer("conv3x3_16x16_32x32", 3, 1, [16, 16], 32),
    layer("conv3x3_16x16_32x32 (2)", 3, 1, [16, 16], 32),
    layer("conv3x3s2_16x32_32x32", 3, 2, [16, 32], 32),
    layer("conv3x3_32x32_16x16", 3, 1, [32, 32], 16),
    layer("conv1x1s2_16x32_32x32", 1, 2, [16, 32], 32),
    layer("conv3x3s2_32x64_16x16", 3, 2, [32, 64], 16),
    layer("conv3x3_64x64_8x8", 3, 1, [64, 64], 8),
    layer("conv1x1s2_32x64_16x16", 1, 2, [32, 64], 16),
];

/// What a residual is added to, and the same with it: the peer's sum of two maps, which is no operation of its own here.
pub(super) const SUM: [Layer; 2] = {
    let plain = layer("add_16x16x64", 1, 1, [64, 64], 16);
    [plain, Layer { residual: true, ..plain }]
};

/// Elements of the sum.
pub(super) const SUM_ELEMENTS: usize = 16 * 16 * 64;

/// The operation of the network that is the layer: a convolution before it makes its input, one behind it the prediction.
pub(super) const OPERATION: u16 = 1;

/// Numbers in [−1, 1) without a pattern.
fn random(len: usize, seed: u32) -> Vec<f32> {
    let words = (0..len as u32).map(|i| philox([seed, 0x6265_6E63], [i, 0, 0, 0])[0] as i32);
    words.map(|word| word as f32 / 2f32.powi(31)).collect()
}

/// A convolution with random weights whose results have about the spread of its input.
pub(crate) fn conv(kernel: usize, stride: usize, [inputs, outputs]: [usize; 2], seed: u32) -> Op {
    let taps = kernel * kernel * inputs;
    let gain = (3.0 / taps as f32).sqrt();
    // Zeros at both sides of an odd kernel; with a stride, below and to the right.
    let padding = match (kernel, stride) {
        (1, _) => [0; 4],
        (_, 1) => [1; 4],
        _ => [0, 0, 1, 1],
    };
    Op::Conv2d(Conv2d {
        kernel: [kernel; 2],
        stride,
        padding,
        inputs,
        outputs,
        weight: random(taps * outputs, seed).iter().map(|weight| gain * weight).collect(),
        bias: random(outputs, seed + 1),
    })
}

/// A conditioning vector that nothing reads.
pub(crate) fn time_embedding() -> TimeEmbedding {
    let linear = || Linear { inputs: 2, outputs: 2, weight: vec![0.0; 4], bias: vec![0.0; 2] };
    TimeEmbedding {
        projection: Projection::sinusoid(2, false, 0.0, FrequencyOrder::Product),
        linear_1: linear(),
        activation: Activation::Silu,
        linear_2: linear(),
    }
}

impl Layer {
    /// Multiply-accumulates, those with padding included.
    pub(super) const fn macs(&self) -> usize {
        let side = self.side / self.stride;
        side * side * self.channels[0] * self.channels[1] * self.kernel * self.kernel
    }

    /// Its network.
    pub(super) fn graph(&self) -> Graph {
        let [inputs, outputs] = self.channels;
        // Few channels, so that no operation beside the layer needs more memory than it.
        let sample = inputs.min(4);
        let mut graph = Graph::new(Shape::new(self.side, self.side, sample), time_embedding());
        let before = graph.node("before", conv(1, 1, [sample, inputs], 1), &[graph.input]);
        let mut op = conv(self.kernel, self.stride, [inputs, outputs], 3);
        if let (true, Op::Conv2d(conv)) = (self.per_tensor, &mut op) {
            // The largest weight of each output gives its scale.
            let most = conv.weight.iter().fold(0f32, |most, weight| most.max(weight.abs()));
            conv.weight.iter_mut().step_by(inputs).for_each(|first| *first = most);
        }
        let mut layer = graph.node("layer", op, &[before]);
        if self.residual {
            layer = graph.node("sum", Op::Add, &[layer, before]);
        }
        if self.stride == 2 {
            layer = graph.node("enlarge", Op::Upsample, &[layer]);
        }
        graph.output = graph.node("behind", conv(1, 1, [outputs, sample], 5), &[layer]);
        graph
    }
}
