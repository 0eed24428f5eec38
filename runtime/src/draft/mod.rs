//! Small models by hand, for this crate's own tests and as seeds of the fuzz target `model`: a model of pictures here, with
//! results written over operands, guidance and history, a [policy], a network of
//! [pixels], one that a classifier guides ([classified]), one of [rows] that are resampled and a [chain] besides; together every kind
//! of operation, in any precision. A test changes what it likes and seals it.

extern crate std;

pub(crate) mod chain;
pub(crate) mod classified;
pub(crate) mod pixels;
pub(crate) mod policy;
pub(crate) mod rows;

use std::vec::Vec;

use bytemuck::Zeroable;

use crate::format::{
    ALIGN, Attention, Bias, Conv2d, Element, Embed, FixedStep, FloatStep, Gather, GroupNorm, Header, Linear, MAGIC,
    NONE, ORDER_BITS, Op, OpKind, Precision, STEP_BYTES, Schedule, Tensor, Threshold, VERSION, Variance, WeightLayout,
    chunk_checksum, seal,
};

/// Where parameters lie: all of them in the same bytes, which mean small numbers in every type.
pub(crate) const PARAMETERS: u32 = size_of::<Header>() as u32;
const PARAMETER_BYTES: usize = 2560;
/// Their first bytes, again and again. Half precision: 1 each; single: 0.0078; two's complement: 0, 60, 15360.
const PATTERN: [u8; 2] = [0x00, 0x3C];
/// Where the checksums of streamed weights lie.
const SUMS: u32 = PARAMETERS + PARAMETER_BYTES as u32;
/// Steps of the only schedule.
pub(crate) const STEPS: usize = 3;

/// Tensors by number.
pub(crate) const SAMPLE: u16 = 0;
pub(crate) const PREDICTION: u16 = 1;
pub(crate) const CONDITIONING: u16 = 2;
pub(crate) const BIAS: u16 = 3;
pub(crate) const MAP: u16 = 4;
pub(crate) const NORM: u16 = 5;
pub(crate) const QUERY: u16 = 6;
pub(crate) const KEY_VALUE: u16 = 7;
pub(crate) const CONTEXT: u16 = 8;
pub(crate) const SCORES: u16 = 9;
pub(crate) const SUM: u16 = 10;
/// The rings of operations 2, 4, 5, 7 and 8.
pub(crate) const RINGS: u16 = 11;
/// What the sampler keeps comes last.
pub(crate) const UNCONDITIONAL: u16 = 16;
pub(crate) const NEWER: u16 = 17;
pub(crate) const OLDER: u16 = 18;

/// Operations by number.
pub(crate) const EMBED: usize = 0;
pub(crate) const LINEAR: usize = 1;
pub(crate) const FIRST: usize = 2;
pub(crate) const GROUP_NORM: usize = 3;
pub(crate) const TO_QUERY: usize = 4;
pub(crate) const TO_KEY_VALUE: usize = 5;
pub(crate) const ATTENTION: usize = 6;
pub(crate) const ADD: usize = 7;
pub(crate) const LAST: usize = 8;

/// The parts of a file.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) header: Header,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) ops: Vec<Op>,
    pub(crate) schedule: Schedule,
    pub(crate) fixed: Vec<FixedStep>,
    pub(crate) float: Vec<FloatStep>,
    /// What learned variances mean in each step; empty: there are none.
    pub(crate) variances: Vec<Variance>,
    /// How clean samples are bounded.
    pub(crate) threshold: Option<Threshold>,
    /// Records of actions; empty: the sample is a picture.
    pub(crate) actions: Vec<u8>,
    /// Checksums of the chunks of streamed weights.
    sums: Vec<u32>,
}

/// A file in memory that is aligned as a session wants it.
pub(crate) struct File {
    words: Vec<u128>,
    len: usize,
}

impl File {
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl Draft {
    pub(crate) fn new(precision: Precision) -> Self {
        let [activation, wide, conditioning, ring] = elements(precision);
        let mut draft = Self::start(Header {
            precision: precision.code(),
            classes: 3,
            unconditional_class: 2,
            sample: SAMPLE,
            prediction: PREDICTION,
            unconditional: UNCONDITIONAL,
            history: [NEWER, OLDER],
            conditioning: 4,
            ..Header::zeroed()
        });
        let end = 9;
        let map = [2, 2, 4];
        for (shape, element, life) in [
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [8, end]),
            ([1, 1, 4], conditioning, [0, 1]),
            ([1, 1, 4], wide, [1, 2]),
            (map, activation, [2, 7]),
            ([1, 4, 2], wide, [3, 4]),
            (map, activation, [4, 6]),
            ([2, 2, 8], activation, [5, 6]),
            (map, activation, [6, 8]),
            ([1, 1, 4], wide, [6, 6]),
            (map, activation, [7, 8]),
            // The kernels of the first and the last are 3×3 over two columns and a margin.
            ([3, 4, 1], ring_of_samples(precision), [2, 2]),
            ([1, 2, 4], ring, [4, 4]),
            ([1, 2, 4], ring, [5, 5]),
            ([1, 2, 4], ring, [7, 7]),
            ([3, 4, 8], ring, [8, 8]),
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [0, end]),
            ([2, 2, 1], wide, [0, end]),
        ] {
            draft.add(shape, element, life);
        }
        draft.tensors[usize::from(CONTEXT)].offset = draft.tensors[usize::from(QUERY)].offset;
        draft.tensors[usize::from(SUM)].offset = draft.tensors[usize::from(MAP)].offset;
        draft.ops = operations(precision);
        draft
    }

    /// Neither tensors nor operations; steps that look back as far as the header keeps samples.
    pub(crate) fn start(header: Header) -> Self {
        let mut draft = Self {
            header: Header { magic: MAGIC, version: VERSION, schedules: 1, ..header },
            tensors: Vec::new(),
            ops: Vec::new(),
            schedule: Schedule { steps: STEPS as u32, bias_bytes: 16, ..Schedule::zeroed() },
            fixed: Vec::new(),
            float: Vec::new(),
            variances: Vec::new(),
            threshold: None,
            actions: Vec::new(),
            sums: Vec::new(),
        };
        let [newer, older] = header.history.map(|kept| kept != NONE);
        for i in 0..STEPS as i32 {
            let history = [i32::from(newer && i > 0), i32::from(older && i > 1)];
            draft.fixed.push(FixedStep {
                timestep: 900 - i,
                clip: 1 << 20,
                // Parameters of large integers make a large model output.
                x0: [1 << 20, -1],
                x0_shift: 20,
                next: [1 << 19, 1 << 18, 1, 1 << 16],
                next_shift: 20,
                history: history.map(|one| one << 17),
            });
            draft.float.push(FloatStep {
                timestep: 900 - i,
                clip: 1.0,
                x0: [1.0, -1.0 / 1024.0],
                next: [0.5, 0.25, 1.0 / 1024.0, 0.0625],
                history: history.map(|one| one as f32 / 8.0),
                ..FloatStep::zeroed()
            });
        }
        draft
    }

    /// A tensor behind all others in the arena.
    pub(crate) fn add(
        &mut self,
        [rows, columns, channels]: [u16; 3],
        element: Element,
        [first, last]: [u16; 2],
    ) -> u16 {
        let mut tensor = Tensor {
            offset: self.header.arena_bytes,
            rows,
            columns,
            channels,
            element: element.code(),
            first,
            last,
            ..Tensor::zeroed()
        };
        tensor.bytes = (tensor.len() * element.bytes()) as u32;
        self.header.arena_bytes += tensor.bytes.next_multiple_of(ALIGN as u32);
        self.tensors.push(tensor);
        self.tensors.len() as u16 - 1
    }

    /// Another shape or element, in memory of its own.
    pub(crate) fn resize(&mut self, id: u16, shape: [u16; 3], element: Element) {
        let Tensor { first, last, .. } = *self.tensor(id);
        self.add(shape, element, [first, last]);
        *self.tensor(id) = self.tensors.pop().expect("added");
    }

    /// Drops what the sampler keeps from tensor `id` on: the older sample, both, or those and the unconditional output.
    pub(crate) fn keep_before(&mut self, id: u16) {
        self.tensors.truncate(id.into());
        let header = &mut self.header;
        let [newer, older] = &mut header.history;
        for kept in [&mut header.unconditional, newer, older] {
            *kept = if *kept < id { *kept } else { NONE };
        }
        let looks_back = self.header.history.map(|kept| kept != NONE);
        for step in &mut self.fixed {
            step.history = core::array::from_fn(|k| if looks_back[k] { step.history[k] } else { 0 });
        }
        for step in &mut self.float {
            step.history = core::array::from_fn(|k| if looks_back[k] { step.history[k] } else { 0.0 });
        }
    }

    /// Takes the weights of every convolution out of the file, in chunks of eight channels, through windows for up to `buffers` of
    /// them: the bytes of their own file.
    pub(crate) fn stream(&mut self, buffers: u64) -> Vec<u8> {
        let mut weights = Vec::new();
        for index in 0..self.ops.len() {
            let Op::Conv2d(op) = self.ops[index] else { continue };
            let outputs = u64::from(op.computed(*self.tensor(op.output)).channels);
            let taps = op.taps(self.tensor(op.scratch).channels.into());
            let chunks = op.layout().chunks(1, outputs, taps);
            let [start, checks] = [weights.len() as u32, SUMS + 4 * self.sums.len() as u32];
            for chunk in 0..chunks.count {
                let from = weights.len();
                let channels = (outputs - 8 * chunk).min(8);
                weights.extend(PATTERN.repeat(op.layout().bytes(channels, taps) as usize / PATTERN.len() + 1));
                weights.truncate(from + op.layout().bytes(channels, taps) as usize);
                weights.resize(weights.len().next_multiple_of(ALIGN), 0);
                self.sums.push(chunk_checksum(&weights[from..]));
            }
            self.sums.resize(self.sums.len().next_multiple_of(ALIGN / 4), 0);
            let bytes = chunks.largest() * buffers.min(chunks.count);
            let window = self.add([1, 1, bytes as u16], Element::I8, [index as u16; 2]);
            let conv = self.conv(index);
            (conv.window, conv.weights, conv.checks) = (window, start, checks);
        }
        self.header.weights_bytes = weights.len() as u32;
        weights
    }

    /// Adds a convolution that writes a learned variance, of the model of pictures; what the sampler does not keep was dropped before.
    pub(crate) fn learn_variance(&mut self) {
        let end = self.ops.len() as u16;
        self.tensors.iter_mut().filter(|tensor| tensor.last == end).for_each(|tensor| tensor.last += 1);
        self.tensor(SUM).last = end;
        let ring = *self.tensor(RINGS + 1);
        let scratch = self.add([ring.rows, ring.columns, ring.channels], ring.element(), [end; 2]);
        let prediction = *self.tensor(PREDICTION);
        let shape = [prediction.rows, prediction.columns, prediction.channels];
        let output = self.add(shape, prediction.element(), [end, end + 1]);
        let conv = convolution(self.header.precision());
        self.ops.push(Op::Conv2d(Conv2d { sources: [SUM, NONE], output, scratch, ..conv }));
        self.header.variance = output;
        self.variances = (0..STEPS as i32).map(|step| Variance { orders: (3 - step) << (ORDER_BITS - 10) }).collect();
    }

    pub(crate) fn tensor(&mut self, id: u16) -> &mut Tensor {
        &mut self.tensors[usize::from(id)]
    }

    pub(crate) fn conv(&mut self, index: usize) -> &mut Conv2d {
        let Op::Conv2d(op) = &mut self.ops[index] else { panic!("operation {index} is no convolution") };
        op
    }

    pub(crate) fn group_norm(&mut self) -> &mut GroupNorm {
        let Op::GroupNorm(op) = &mut self.ops[GROUP_NORM] else { panic!("moved") };
        op
    }

    pub(crate) fn attention(&mut self) -> &mut Attention {
        let Op::Attention(op) = &mut self.ops[ATTENTION] else { panic!("moved") };
        op
    }

    pub(crate) fn embed(&mut self) -> &mut Embed {
        let Op::Embed(op) = &mut self.ops[EMBED] else { panic!("moved") };
        op
    }

    pub(crate) fn linear(&mut self) -> &mut Linear {
        let Op::Linear(op) = &mut self.ops[LINEAR] else { panic!("moved") };
        op
    }

    /// The file: offsets that are 0 are filled in, and counts, lengths and the checksum.
    pub(crate) fn file(&self) -> File {
        let (mut header, mut schedule) = (self.header, self.schedule);
        let mut bytes = std::vec![0; size_of::<Header>()];
        bytes.extend(PATTERN.repeat(PARAMETER_BYTES / PATTERN.len()));
        bytes.extend(bytemuck::cast_slice(&self.sums));
        let mut append = |records: &[u8]| {
            bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            bytes.extend(records);
            (bytes.len() - records.len()) as u32
        };
        let place = |field: &mut u32, at: u32| *field = if *field == 0 { at } else { *field };
        place(&mut header.tensors_at, append(bytemuck::cast_slice(&self.tensors)));
        place(&mut header.ops_at, append(&self.ops.iter().flat_map(|op| op.bytes()).copied().collect::<Vec<u8>>()));
        let steps: &[u8] = match header.precision() {
            Precision::I8 => bytemuck::cast_slice(&self.fixed),
            Precision::F16 | Precision::F32 => bytemuck::cast_slice(&self.float),
        };
        assert_eq!(steps.len(), STEPS * STEP_BYTES);
        place(&mut schedule.rows, append(&[steps, bytemuck::cast_slice(&self.variances)].concat()));
        if let Some(threshold) = &self.threshold {
            place(&mut schedule.threshold, append(bytemuck::bytes_of(threshold)));
        }
        if !self.actions.is_empty() {
            place(&mut header.actions, append(&self.actions));
        }
        place(&mut schedule.embeddings, PARAMETERS);
        place(&mut schedule.biases, PARAMETERS);
        place(&mut header.schedules_at, append(bytemuck::bytes_of(&schedule)));
        for (field, text) in [(&mut header.name, "by hand"), (&mut header.provenance, "the core's tests")] {
            let at = append(text.as_bytes());
            *field = if field[1] == 0 { [at, text.len() as u32] } else { *field };
        }
        header.tensors = if header.tensors == 0 { self.tensors.len() as u16 } else { header.tensors };
        header.ops = if header.ops == 0 { self.ops.len() as u16 } else { header.ops };
        header.file_bytes = bytes.len() as u32;
        bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        seal(&mut bytes);
        let mut words = std::vec![0u128; bytes.len().div_ceil(16)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        File { words, len: bytes.len() }
    }
}

/// Elements of a precision: of activations, of accumulators and samples, of the conditioning vector, of rings.
pub(crate) fn elements(precision: Precision) -> [Element; 4] {
    match precision {
        Precision::I8 => [Element::I8, Element::I32, Element::I16, Element::I8],
        Precision::F16 => [Element::F16, Element::F32, Element::F32, Element::F32],
        Precision::F32 => [Element::F32; 4],
    }
}

/// Element of the rings that samples are read into.
pub(crate) fn ring_of_samples(precision: Precision) -> Element {
    if precision == Precision::I8 { Element::I16 } else { Element::F32 }
}

/// A header without classes, a second prediction or earlier samples.
fn header(precision: Precision, [sample, prediction]: [u16; 2]) -> Header {
    Header {
        precision: precision.code(),
        unconditional_class: NONE,
        sample,
        prediction,
        unconditional: NONE,
        history: [NONE; 2],
        ..Header::zeroed()
    }
}

/// A convolution of one element without anything else.
pub(crate) fn convolution(precision: Precision) -> Conv2d {
    let layout = match precision {
        Precision::I8 => WeightLayout::Rows8,
        Precision::F16 => WeightLayout::Groups16,
        Precision::F32 => WeightLayout::Groups32,
    };
    Conv2d {
        kind: OpKind::Conv2d.code(),
        layout: layout.code(),
        sources: [NONE; 2],
        residual: NONE,
        norm: NONE,
        kernel: [1, 1],
        stride: 1,
        bias: Bias::Constant.code(),
        bias_tensor: NONE,
        weights: PARAMETERS,
        bias_at: PARAMETERS,
        requant: PARAMETERS,
        multiplier: [1 << 30; 2],
        residual_multiplier: 1 << 30,
        affine_shift: 10,
        residual_gain: 1.0,
        input_gain: 1.0,
        window: NONE,
        patches: NONE,
        chunk_blocks: 1,
        ..Conv2d::zeroed()
    }
}

fn linear(source: u16, output: u16) -> Linear {
    Linear {
        kind: OpKind::Linear.code(),
        source,
        output,
        weights: PARAMETERS,
        bias: PARAMETERS,
        requant: PARAMETERS,
        ..Linear::zeroed()
    }
}

fn group_norm(source: u16, output: u16, groups: u16) -> GroupNorm {
    GroupNorm {
        kind: OpKind::GroupNorm.code(),
        sources: [source, NONE],
        output,
        groups,
        gamma: PARAMETERS,
        beta: PARAMETERS,
        ratio: [1 << 15; 2],
        epsilon: 1e-5,
        epsilon_q16: 1,
        affine_shift: 10,
        ..GroupNorm::zeroed()
    }
}

fn operations(precision: Precision) -> Vec<Op> {
    let conv = Conv2d { sources: [MAP, NONE], ..convolution(precision) };
    let wide = |op: Conv2d| Conv2d { kernel: [3, 3], padding: [1, 1], ..op };
    std::vec![
        Op::Embed(Embed {
            kind: OpKind::Embed.code(),
            output: CONDITIONING,
            table: PARAMETERS,
            input_shift: 1,
            output_shift: 1,
            ..Embed::zeroed()
        }),
        Op::Linear(linear(CONDITIONING, BIAS)),
        Op::Conv2d(Conv2d {
            sources: [SAMPLE, NONE],
            output: MAP,
            scratch: RINGS,
            bias: Bias::Tensor.code(),
            bias_tensor: BIAS,
            ..wide(conv)
        }),
        Op::GroupNorm(group_norm(MAP, NORM, 2)),
        Op::Conv2d(Conv2d { gather: Gather::AffineSilu.code(), norm: NORM, output: QUERY, scratch: RINGS + 1, ..conv }),
        Op::Conv2d(Conv2d { output: KEY_VALUE, scratch: RINGS + 2, ..conv }),
        Op::Attention(Attention {
            kind: OpKind::Attention.code(),
            query: QUERY,
            key_value: KEY_VALUE,
            output: CONTEXT,
            scratch: SCORES,
            heads: 2,
            score_multiplier: 1 << 30,
            value_multiplier: 1 << 30,
            weight_bits: 8,
            scale: 0.5,
            ..Attention::zeroed()
        }),
        Op::Conv2d(Conv2d { sources: [CONTEXT, NONE], residual: MAP, output: SUM, scratch: RINGS + 3, ..conv }),
        Op::Conv2d(Conv2d {
            sources: [SUM, CONTEXT],
            output: PREDICTION,
            scratch: RINGS + 4,
            bias: Bias::Step.code(),
            bias_at: 0,
            ..wide(conv)
        }),
    ]
}
