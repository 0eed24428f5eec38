//! How far each activation of a file is from that of the `f32` model.

use typed_index_collections::{TiVec, ti_vec};

use super::TensorError;
use super::loaded::{Call, Loaded};
use super::prepared::Prepared;
use crate::network::OpId;
use crate::progress::Progress;

/// Error of every activation: both models see the same samples, those of a run of the first list with `reference`, the
/// `f32` model.
///
/// # Panics
/// If the files are not of this network: a defect of the exporter.
pub(super) fn measure(
    prepared: &Prepared,
    [reference, quantized]: [&Loaded<'_>; 2],
    samples: &[Vec<f32>],
    progress: &dyn Progress,
) -> Vec<TensorError> {
    let Prepared { network, conditions, .. } = prepared;
    let steps = reference.model.schedule(0).map_or(0, |list| list.steps as usize);
    let mut power: TiVec<OpId, [f64; 2]> = ti_vec![[0.0; 2]; network.ops.len()];
    progress.begin("measuring errors", steps as u64);
    for (step, x) in samples.iter().take(steps).enumerate() {
        let call = Call { x, step: step as u32, conditions };
        let (want, got) = rayon::join(|| reference.results(network, &call), || quantized.results(network, &call));
        for (power, (want, got)) in power.iter_mut().zip(want.iter().zip(&got)) {
            for (&want, &got) in want.iter().zip(got) {
                power[0] += want * want;
                power[1] += (want - got) * (want - got);
            }
        }
        progress.advance(1);
    }
    progress.end();
    let element = |id| {
        quantized.model.tensor(id).map_or_else(String::new, |tensor| format!("{:?}", tensor.element()).to_lowercase())
    };
    let measured = network.ops.iter().zip(power).filter(|(_, [signal, _])| *signal > 0.0);
    let of = |((name, op), [signal, error]): (&(String, crate::network::Op), [f64; 2])| TensorError {
        name: name.clone(),
        element: element(op.output().in_file()),
        sqnr_db: 10.0 * (signal / error.max(signal * 1e-20)).log10(),
    };
    measured.map(of).collect()
}
