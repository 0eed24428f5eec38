//! Writing the `.waft` file: records and sections as [`waft::format`] specifies them.

use waft::format::{ALIGN, HEADER_BYTES, MAGIC, NONE, OP_BYTES, SCHEDULE_BYTES, STEP_BYTES, TENSOR_BYTES, VERSION};
use waft::format::{Element, Precision, checksum, chunk_checksum};

use crate::network::{TensorId, Window};

/// A record under construction: fixed size, fields by their place.
#[derive(Clone, Debug)]
pub struct Record(Vec<u8>);

impl Record {
    /// Zeros.
    pub fn new(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    /// An operation's record of the given kind.
    pub fn op(kind: u8) -> Self {
        Self::new(OP_BYTES).u8(0, kind)
    }

    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Sets a byte.
    pub fn u8(self, at: usize, value: u8) -> Self {
        self.put(at, &[value])
    }

    /// Sets a 16-bit field.
    pub fn u16(self, at: usize, value: u16) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Sets a 32-bit field.
    pub fn u32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Sets a signed 32-bit field.
    pub fn i32(self, at: usize, value: i32) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Sets a 64-bit field.
    pub fn u64(self, at: usize, value: u64) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Sets a float field.
    pub fn f32(self, at: usize, value: f32) -> Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Sets a field that names a tensor or nothing.
    pub fn id(self, at: usize, id: Option<impl Into<usize>>) -> Self {
        self.u16(at, id.map_or(NONE, |id| id.into() as u16))
    }
}

/// A tensor's entry.
#[derive(Clone, Copy, Debug)]
pub struct TensorEntry {
    /// Arena offset.
    pub offset: u64,
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// Element type.
    pub element: Element,
    /// First and last operation.
    pub life: [usize; 2],
    /// Real value of a unit.
    pub scale: f64,
    /// Zero point.
    pub zero: i32,
}

/// A step list.
#[derive(Clone, Debug)]
pub struct ScheduleEntry {
    /// One record a step.
    pub steps: Vec<Record>,
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
    /// Precision.
    pub precision: Precision,
    /// Arena bytes and their lower bound.
    pub arena: [u64; 2],
    /// Number of classes, 0 for none.
    pub classes: usize,
    /// The class that means "no class".
    pub unconditional_class: Option<usize>,
    /// Sample, prediction, kept unconditional prediction.
    pub tensors: [Option<TensorId>; 3],
    /// Name.
    pub name: String,
    /// Provenance.
    pub provenance: String,
    /// Conditioning length.
    pub conditioning: usize,
    /// Multiply-accumulates of a call.
    pub macs: u64,
    /// Parameters of the checkpoint.
    pub params: u64,
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
        Self { bytes: vec![0; HEADER_BYTES], weights: vec![] }
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

    /// Appends the weights of a convolution, `block` bytes for eight output channels, here or to the weights' own file.
    pub fn conv_weights(&mut self, record: Record, window: Option<Window>, weights: &[u8], block: usize) -> Record {
        let Some(window) = window else {
            return record.u32(24, self.section(weights)).id(96, None::<TensorId>);
        };
        let at = self.weights.len() as u32;
        let mut checks = vec![];
        for chunk in weights.chunks((window.blocks * block).max(1)) {
            let start = self.weights.len();
            self.weights.extend_from_slice(chunk);
            self.weights.resize(self.weights.len().next_multiple_of(ALIGN), 0);
            checks.push(chunk_checksum(&self.weights[start..]));
        }
        let checks = self.values(&checks);
        record.u32(24, at).id(96, Some(window.tensor)).u16(98, window.blocks as u16).u32(100, checks)
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// Appends the tables, writes the header and seals the file with its checksum; the file, and that of the weights.
    pub fn finish(
        mut self,
        fields: &Fields,
        tensors: &[TensorEntry],
        ops: &[Record],
        schedules: &[ScheduleEntry],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut schedule_table = vec![];
        for schedule in schedules {
            let rows: Vec<u8> = schedule.steps.iter().flat_map(|step| &step.0).copied().collect();
            debug_assert_eq!(rows.len(), schedule.steps.len() * STEP_BYTES);
            let record = Record::new(SCHEDULE_BYTES)
                .u32(0, schedule.steps.len() as u32)
                .u32(4, self.section(&rows))
                .u32(8, if schedule.embeddings.is_empty() { 0 } else { self.section(&schedule.embeddings) })
                .u32(12, if schedule.biases.is_empty() { 0 } else { self.section(&schedule.biases) })
                .u32(16, schedule.bias_bytes as u32);
            schedule_table.extend(record.0);
        }
        let schedules_at = self.section(&schedule_table);
        let tensor_table: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.record().0).collect();
        let tensors_at = self.section(&tensor_table);
        let ops_table: Vec<u8> = ops.iter().flat_map(|op| &op.0).copied().collect();
        let ops_at = self.section(&ops_table);
        let name = truncated(&fields.name, 64);
        let name_at = self.section(name.as_bytes());
        let provenance = truncated(&fields.provenance, 1024);
        let provenance_at = self.section(provenance.as_bytes());

        let [sample, prediction, unconditional] = fields.tensors;
        let header = Record::new(HEADER_BYTES)
            .put(0, &MAGIC)
            .u16(4, VERSION)
            .u8(6, fields.precision as u8)
            .u32(8, self.bytes.len() as u32)
            .u32(16, fields.arena[0] as u32)
            .u32(20, fields.arena[1] as u32)
            .u16(24, tensors.len() as u16)
            .u16(26, ops.len() as u16)
            .u16(28, fields.classes as u16)
            .id(30, fields.unconditional_class)
            .id(32, sample)
            .id(34, prediction)
            .id(36, unconditional)
            .u16(38, schedules.len() as u16)
            .u32(40, tensors_at)
            .u32(44, ops_at)
            .u32(48, schedules_at)
            .u32(52, name_at)
            .u32(56, name.len() as u32)
            .u32(60, provenance_at)
            .u32(64, provenance.len() as u32)
            .u32(68, fields.conditioning as u32)
            .u64(72, fields.macs)
            .u64(80, fields.params)
            .u32(88, self.weights.len() as u32);
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.0);
        let sum = checksum(&self.bytes);
        self.bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        (self.bytes, self.weights)
    }
}

impl TensorEntry {
    fn record(&self) -> Record {
        let [rows, columns, channels] = self.shape;
        Record::new(TENSOR_BYTES)
            .u32(0, self.offset as u32)
            .u32(4, (rows * columns * channels * self.element.bytes()) as u32)
            .u16(8, rows as u16)
            .u16(10, columns as u16)
            .u16(12, channels as u16)
            .u8(14, self.element as u8)
            .u16(16, self.life[0] as u16)
            .u16(18, self.life[1] as u16)
            .f32(20, self.scale as f32)
            .i32(24, self.zero)
    }
}

/// The longest beginning of at most `max` bytes that ends at a character.
fn truncated(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
