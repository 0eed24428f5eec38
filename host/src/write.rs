//! Writing the `.waft` file: sections, tables and the header, as [`waft::format`] specifies them.

use waft::fixed::SAMPLE_BITS;
use waft::format::{
    ALIGN, CHANNEL_BLOCK, FixedAction, FixedStep, FloatAction, FloatStep, Header, Level, MAGIC, NONE, Op, Output,
    Precision, Schedule, Tensor, Threshold, VERSION, Variance, WeightLayout, chunk_checksum, seal,
};

use crate::network::{TensorId, Window};
use crate::quantize::multiplier;

/// The number of a tensor that may not exist.
pub fn optional(tensor: Option<TensorId>) -> u16 {
    tensor.map_or(NONE, TensorId::in_file)
}

/// The steps of a list, as the precision has them.
#[derive(Clone, Debug)]
pub enum Steps {
    /// In i8.
    Fixed(Vec<FixedStep>),
    /// In f16 and f32.
    Float(Vec<FloatStep>),
}

impl Steps {
    fn len(&self) -> usize {
        match self {
            Steps::Fixed(steps) => steps.len(),
            Steps::Float(steps) => steps.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Steps::Fixed(steps) => bytemuck::cast_slice(steps),
            Steps::Float(steps) => bytemuck::cast_slice(steps),
        }
    }
}

/// A schedule and what its steps bring.
#[derive(Clone, Debug)]
pub struct ScheduleEntry {
    /// The steps.
    pub steps: Steps,
    /// What a learned variance means in each; empty without one.
    pub variances: Vec<Variance>,
    /// What the sample before each consists of.
    pub levels: Vec<Level>,
    /// Factor of the initial noise, as the record has it.
    pub start: i32,
    /// How clean samples are bounded, if they are.
    pub threshold: Option<Threshold>,
    /// One row a step, or empty.
    pub embeddings: Vec<u8>,
    /// One row a step, or empty.
    pub biases: Vec<u8>,
    /// Bytes of one row of the biases.
    pub bias_bytes: usize,
}

/// The header's fields that are not offsets.
#[derive(Clone, Debug)]
pub struct Fields {
    /// How the model computes.
    pub precision: Precision,
    /// Arena bytes and their lower bound.
    pub arena: [u64; 2],
    /// Number of classes, 0 for none.
    pub classes: usize,
    /// The class that means "no class".
    pub unconditional_class: Option<usize>,
    /// Sample, prediction.
    pub tensors: [TensorId; 2],
    /// What the network says about the variance of a step's noise.
    pub variance: Option<TensorId>,
    /// What a classifier adds to the model output.
    pub gradient: Option<TensorId>,
    /// What the network reads beside the sample.
    pub condition: Option<TensorId>,
    /// What a policy acts on, and number of the operations that a run executes once.
    pub observation: (Option<TensorId>, usize),
    /// A gain and an offset for each channel of a policy's sample; empty for pictures.
    pub actions: Vec<[f64; 2]>,
    /// Kept unconditional prediction.
    pub unconditional: Option<TensorId>,
    /// Clean samples of the step before and of the one before that.
    pub history: [Option<TensorId>; 2],
    /// Name.
    pub name: String,
    /// Provenance.
    pub provenance: String,
    /// Conditioning length.
    pub conditioning: usize,
    /// Multiply-accumulates of a call.
    pub macs: u64,
    /// Whether the prediction is the output over the timestep.
    pub over_timestep: bool,
    /// Parameters of the checkpoint.
    pub params: u64,
}

/// Where the weights of a convolution are, for its record.
#[derive(Clone, Copy, Debug)]
pub struct StoredWeights {
    /// Offset of the weights, in this file or in that of external weights.
    pub weights: u32,
    /// The window that they pass through.
    pub window: u16,
    /// Blocks of eight output channels in a chunk.
    pub chunk_blocks: u16,
    /// Offset of the chunks' checksums.
    pub checks: u32,
}

/// A file under construction. Parameters are appended first; the tables and the header come last, when all offsets
/// are known.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    weights: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: vec![0; size_of::<Header>()], weights: vec![] }
    }
}

impl Writer {
    /// Appends a section and returns its offset.
    pub fn section(&mut self, data: &[u8]) -> u32 {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        at as u32
    }

    /// Appends values.
    pub fn values<T: bytemuck::Pod>(&mut self, values: &[T]) -> u32 {
        self.section(bytemuck::cast_slice(values))
    }

    /// Appends the packed weights of a convolution with `taps` weights for each output channel, here or to the external
    /// weights.
    pub fn conv_weights(
        &mut self,
        layout: WeightLayout,
        taps: usize,
        weights: &[u8],
        window: Option<Window>,
    ) -> StoredWeights {
        let Some(window) = window else {
            return StoredWeights { weights: self.section(weights), window: NONE, chunk_blocks: 0, checks: 0 };
        };
        let at = self.weights.len() as u32;
        let chunk_bytes = layout.bytes((window.blocks * CHANNEL_BLOCK) as u64, taps as u64) as usize;
        let mut checks = vec![];
        for chunk in weights.chunks(chunk_bytes.max(1)) {
            let start = self.weights.len();
            self.weights.extend_from_slice(chunk);
            self.weights.resize(self.weights.len().next_multiple_of(ALIGN), 0);
            checks.push(chunk_checksum(&self.weights[start..]));
        }
        let checks = self.values(&checks);
        StoredWeights { weights: at, window: window.tensor.in_file(), chunk_blocks: window.blocks as u16, checks }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == size_of::<Header>()
    }

    /// Appends how the sample's channels become actions.
    fn actions(&mut self, fields: &Fields) -> u32 {
        if fields.precision == Precision::I8 {
            let record = |&[gain, offset]: &[f64; 2]| {
                let (multiplier, shift) = multiplier(gain);
                let offset = (offset * f64::from(1 << SAMPLE_BITS)).round() as i32;
                FixedAction { multiplier, shift, offset, reserved: [0; 4] }
            };
            return self.values(&fields.actions.iter().map(record).collect::<Vec<_>>());
        }
        let record =
            |&[gain, offset]: &[f64; 2]| FloatAction { gain: gain as f32, offset: offset as f32, reserved: [0; 8] };
        self.values(&fields.actions.iter().map(record).collect::<Vec<_>>())
    }

    /// Appends the tables, writes the header and seals the file with its checksum; the file, and that of the weights.
    pub fn finish(
        mut self,
        fields: &Fields,
        tensors: &[Tensor],
        ops: &[Op],
        schedules: &[ScheduleEntry],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut schedule_table = vec![];
        for schedule in schedules {
            schedule_table.push(Schedule {
                steps: schedule.steps.len() as u32,
                rows: self.section(&[schedule.steps.bytes(), bytemuck::cast_slice(&schedule.variances)].concat()),
                embeddings: if schedule.embeddings.is_empty() { 0 } else { self.section(&schedule.embeddings) },
                biases: if schedule.biases.is_empty() { 0 } else { self.section(&schedule.biases) },
                bias_bytes: schedule.bias_bytes as u32,
                levels: self.values(&schedule.levels),
                start: schedule.start,
                threshold: schedule.threshold.map_or(0, |threshold| self.values(&[threshold])),
            });
        }
        let schedules_at = self.values(&schedule_table);
        let tensors_at = self.values(tensors);
        let op_table: Vec<u8> = ops.iter().flat_map(Op::bytes).copied().collect();
        let ops_at = self.section(&op_table);
        let actions = if fields.actions.is_empty() { 0 } else { self.actions(fields) };
        let name = truncated(&fields.name, 64);
        let name = [self.section(name.as_bytes()), name.len() as u32];
        let provenance = truncated(&fields.provenance, 1024);
        let provenance = [self.section(provenance.as_bytes()), provenance.len() as u32];
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            precision: fields.precision.code(),
            output: if fields.over_timestep { Output::TimesTimestep } else { Output::Prediction }.code(),
            file_bytes: self.bytes.len() as u32,
            arena_bytes: fields.arena[0] as u32,
            arena_lower_bound: fields.arena[1] as u32,
            tensors: tensors.len() as u16,
            ops: ops.len() as u16,
            classes: fields.classes as u16,
            unconditional_class: fields.unconditional_class.map_or(NONE, |class| class as u16),
            sample: fields.tensors[0].in_file(),
            prediction: fields.tensors[1].in_file(),
            variance: fields.variance.map_or(0, TensorId::in_file),
            gradient: fields.gradient.map_or(0, TensorId::in_file),
            condition: fields.condition.map_or(0, TensorId::in_file),
            observation: fields.observation.0.map_or(0, TensorId::in_file),
            once: fields.observation.1 as u16,
            actions,
            unconditional: optional(fields.unconditional),
            history: fields.history.map(optional),
            schedules: schedules.len() as u16,
            tensors_at,
            ops_at,
            schedules_at,
            name,
            provenance,
            conditioning: fields.conditioning as u32,
            macs: fields.macs,
            params: fields.params,
            weights_bytes: self.weights.len() as u32,
            ..bytemuck::Zeroable::zeroed()
        };
        self.bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        seal(&mut self.bytes);
        (self.bytes, self.weights)
    }
}

/// Lays out weights: `bits` gives those of a number of an output, in the lowest [`WeightLayout::bits`]; numbers are counted as
/// [`WeightLayout::index`] does.
pub fn pack(layout: WeightLayout, [outputs, taps]: [usize; 2], bits: impl Fn(usize, usize) -> u32) -> Vec<u8> {
    let mut packed = vec![0u8; layout.bytes(outputs as u64, taps as u64) as usize];
    let numbers = layout.numbers(taps as u64) as usize;
    for output in 0..outputs {
        for at in 0..numbers {
            let first_bit = layout.index(output, at, numbers) * layout.bits();
            let value = bits(output, at).to_le_bytes();
            match layout.bits() / 8 {
                0 => packed[first_bit / 8] |= (value[0] & 15) << (first_bit % 8),
                bytes => packed[first_bit / 8..][..bytes].copy_from_slice(&value[..bytes]),
            }
        }
    }
    packed
}

/// The longest beginning of at most `max` bytes that ends at a character.
fn truncated(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("", 0), "");
    }

    /// Five outputs of two taps, written out by hand from the format's text.
    #[test]
    fn weights_are_packed_as_specified() {
        let value = |output: usize, tap: usize| (10 * output + tap) as u32;
        assert_eq!(pack(WeightLayout::Rows8, [5, 2], value), [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]);
        let nibble = |output: usize, tap: usize| (output + 8 * tap) as u32;
        assert_eq!(pack(WeightLayout::Groups4, [5, 2], nibble), [0x10, 0x32, 0x98, 0xBA, 0x04, 0, 0x0C, 0]);
        let halves = pack(WeightLayout::Groups16, [5, 2], value);
        let expected = [0, 10, 20, 30, 40, 0, 0, 0, 1, 11, 21, 31, 41, 0, 0, 0u16];
        assert_eq!(halves, bytemuck::cast_slice::<u16, u8>(&expected));
        // Three outputs of four inputs: 16 points, at each four inputs of one output, then of the other.
        let number = |output: usize, at: usize| (1000 * output + at) as u32;
        let tiles = pack(WeightLayout::Tiles2, [3, 36], number);
        let point = |first: u16, at: u16| [0, 2, 1, 3].map(|input| 1000 * first + 4 * at + input);
        let pairs = (0..16).flat_map(|at| [point(0, at), point(1, at)]);
        let last = (0..16).flat_map(|at| [point(2, at), [0; 4]]);
        let expected: Vec<u16> = pairs.chain(last).flatten().collect();
        assert_eq!(tiles, bytemuck::cast_slice::<u16, u8>(&expected));
    }
}
