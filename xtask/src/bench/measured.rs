//! What single layers take.

use anyhow::Context;
use serde::Serialize;

/// Scratch that the first figure of a layer may take.
const SCRATCH_BYTES: u64 = 20 * 1024;

/// What variants with activations of 16 bits end in: more than the peer's layers have.
pub(super) const OF_WORDS: &str = ", i16";

/// One way to compute a layer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Variant {
    pub(super) variant: String,
    pub(super) instructions: u64,
    pub(super) scratch_bytes: u64,
    /// Bytes of the stored weights as a multiple of those of eight bits.
    pub(super) flash_factor: f64,
}

impl Variant {
    /// Whether activations are as wide as the peer's.
    pub(super) fn is_peers(&self) -> bool {
        !self.variant.ends_with(OF_WORDS)
    }
}

/// What a layer takes.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) layer: &'static str,
    pub(super) macs: usize,
    /// What the exporter chooses with weights as they are and little scratch.
    pub(super) instructions: u64,
    pub(super) scratch_bytes: u64,
    pub(super) flash_factor: f64,
    /// Instructions as a multiple of CMSIS-NN's, on the cores that it was measured on.
    pub(super) ratio_to_cmsis_nn: Option<f64>,
    /// The same of the variant with the fewest, whatever it stores and keeps.
    pub(super) fast_ratio_to_cmsis_nn: Option<f64>,
    pub(super) variants: Vec<Variant>,
}

impl Measured {
    /// The fewest instructions with little scratch come first.
    pub(super) fn best(
        layer: &'static str,
        macs: usize,
        variants: Vec<Variant>,
        cmsis_nn: Option<u64>,
    ) -> anyhow::Result<Self> {
        let is_peers = |variant: &&Variant| variant.is_peers();
        let fits = |variant: &&Variant| variant.scratch_bytes <= SCRATCH_BYTES && variant.flash_factor == 1.0;
        let ratio = |instructions: u64| cmsis_nn.map(|cmsis_nn| instructions as f64 / cmsis_nn as f64);
        let fast = variants.iter().filter(is_peers).map(|variant| variant.instructions).min().and_then(ratio);
        let best = variants
            .iter()
            .filter(is_peers)
            .filter(fits)
            .min_by_key(|variant| variant.instructions)
            .context("no variant with little scratch")?
            .clone();
        Ok(Self {
            layer,
            macs,
            instructions: best.instructions,
            scratch_bytes: best.scratch_bytes,
            flash_factor: best.flash_factor,
            ratio_to_cmsis_nn: ratio(best.instructions),
            fast_ratio_to_cmsis_nn: fast,
            variants,
        })
    }
}
