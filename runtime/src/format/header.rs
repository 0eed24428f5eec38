//! The header.

use super::record::{coded_fields, codes, record};

codes! {
    /// How a model computes.
    pub enum Precision {
        /// Integers only; bit-identical on every target.
        I8 = 0,
        /// Half-precision weights and activations, single-precision accumulation.
        F16 = 1,
        /// Single precision: the reference.
        F32 = 2,
    }
}

impl Precision {
    /// Its name in commands, reports and features.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::I8 => "i8",
            Precision::F16 => "f16",
            Precision::F32 => "f32",
        }
    }
}

codes! {
    /// What the network's output is.
    pub enum Output {
        /// The prediction.
        Prediction = 0,
        /// The prediction times the timestep; steps have the division among their coefficients.
        TimesTimestep = 1,
    }
}

record! {
    /// The first bytes of the file.
    pub struct Header {
        /// [`MAGIC`](super::MAGIC)
        pub magic: [u8; 4],
        /// [`VERSION`](super::VERSION)
        pub version: u16,
        /// [`Precision`]
        pub precision: u8,
        /// [`Output`]
        pub output: u8,
        /// bytes of the whole file
        pub file_bytes: u32,
        /// CRC-32 (IEEE 802.3, reflected, as zip) of the whole file without these four bytes
        pub checksum: u32,
        /// arena bytes
        pub arena_bytes: u32,
        /// lower bound of the arena: the largest sum of live tensors over the operations
        pub arena_lower_bound: u32,
        /// number of tensors
        pub tensors: u16,
        /// number of operations of one network call
        pub ops: u16,
        /// number of classes, 0 if the model is unconditional
        pub classes: u16,
        /// class that means "no class", or [`NONE`](super::NONE)
        pub unconditional_class: u16,
        /// tensor: the sample `x_t`
        pub sample: u16,
        /// tensor: the model output
        pub prediction: u16,
        /// tensor: the unconditional output that guidance keeps, or [`NONE`](super::NONE)
        pub unconditional: u16,
        /// number of schedules
        pub schedules: u16,
        /// offset of the tensor table
        pub tensors_at: u32,
        /// offset of the operation table
        pub ops_at: u32,
        /// offset of the schedule table
        pub schedules_at: u32,
        /// offset and length of the name, UTF-8, at most 64 bytes
        pub name: [u32; 2],
        /// offset and length of the provenance, UTF-8, at most 1024 bytes
        pub provenance: [u32; 2],
        /// length of the conditioning vector; 0: the schedules carry per-step biases instead
        pub conditioning: u32,
        /// multiply-accumulates of one network call
        pub macs: u64,
        /// parameters of the checkpoint
        pub params: u64,
        /// bytes of the external weights, 0 if all weights are in this file
        pub weights_bytes: u32,
        /// tensors: the clean samples of the step before and of the one before that, or [`NONE`](super::NONE)
        pub history: [u16; 2],
        /// tensor: the condition, which a network reads beside the sample and a run leaves as it is; 0 if there is none
        pub condition: u16,
        /// tensor: the observation, which the first operations of a run read; 0 if there is none
        pub observation: u16,
        /// number of the first operations that a run executes once: what they compute depends on the observation alone
        pub once: u16,
        /// tensor: the learned variance that a step's noise is scaled by, see [`Variance`](super::Variance); 0 if there is none
        pub variance: u16,
        /// offset of a record for each channel of the sample, [`FixedAction`](super::FixedAction) or
        /// [`FloatAction`](super::FloatAction); 0: the sample is a picture
        pub actions: u32,
        /// tensor: what the network's classifier adds to the output at a guidance of 1, of the sample's shape; 0 if it has none
        pub gradient: u16,
        /// zeros
        pub reserved_end: [u8; 18],
    }
}

coded_fields! {
    Header {
        /// How the model computes.
        precision: Precision or F32,
        /// What the network's output is.
        output: Output or Prediction,
    }
}
