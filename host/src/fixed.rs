//! Samples, conditions and observations as the runtime has them, and as floats.

use waft::Samples;
use waft::fixed::SAMPLE_BITS;

/// Whether a value is a number that the runtime's fixed point holds: between −2048 and 2048.
pub fn fits_fixed(value: f32) -> bool {
    value.abs() < (1_u32 << (31 - SAMPLE_BITS)) as f32
}

/// Floats in the runtime's fixed point.
pub fn to_fixed(values: &[f32]) -> Vec<i32> {
    values.iter().map(|v| (f64::from(*v) * f64::from(1 << SAMPLE_BITS)).round() as i32).collect()
}

/// Values of a precision as floats.
pub fn to_floats(samples: Option<Samples<'_>>) -> Vec<f32> {
    match samples {
        Some(Samples::Float(values)) => values.to_vec(),
        Some(Samples::Fixed(values)) => values.iter().map(|&v| v as f32 / (1 << SAMPLE_BITS) as f32).collect(),
        None => vec![],
    }
}
