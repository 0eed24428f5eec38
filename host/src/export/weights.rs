//! Which weights get four bits: those that lose least, until the file fits.

use waft::format::WeightLayout;

use super::ExportError;
use crate::calibrate::Observations;
use crate::emit::i8::QuantizedConvs;
use crate::network::{Network, OpId};
use crate::plan::ALIGN;
use crate::widths::{WeightWidth, WeightWidths};

/// A convolution whose weights can have four bits.
struct Candidate {
    id: OpId,
    /// Noise over signal of its result, for each byte that four bits save.
    loss: f64,
    /// Bytes that four bits save.
    saved: u64,
}

/// The widths with which a file fits into a budget, which has so many bytes with eight bits everywhere (`[bytes, budget]`).
/// `four` are the integers with four bits wherever that is possible.
pub(super) fn within(
    network: &Network,
    seen: &Observations,
    four: &QuantizedConvs,
    [bytes, budget]: [u64; 2],
) -> Result<WeightWidths, ExportError> {
    let candidates = network
        .convs()
        .filter_map(|(id, conv)| {
            let quantized = four[id].as_ref().filter(|quantized| quantized.width == WeightWidth::Four)?;
            let [keys, values] = &seen.key_value[conv.output];
            let own = &seen.tensors[conv.output];
            let signal = [own, keys, values].iter().map(|observer| observer.variance()).sum::<f64>().max(1e-12);
            let section = |layout: WeightLayout| {
                layout.bytes(conv.conv.outputs as u64, conv.taps() as u64).next_multiple_of(ALIGN)
            };
            let saved = section(WeightLayout::Rows8) - section(WeightLayout::Groups4);
            Some(Candidate { id, loss: quantized.noise / signal / saved.max(1) as f64, saved })
        })
        .collect();
    let narrow = narrow(candidates, bytes, budget).map_err(|needed| ExportError::BudgetFlash { budget, needed })?;
    let mut widths: WeightWidths = network.ops.iter().map(|_| WeightWidth::Eight).collect();
    for id in narrow {
        widths[id] = WeightWidth::Four;
    }
    Ok(widths)
}

/// The candidates of least loss that bring `bytes` down to `budget`; the bytes that remain if all of them do not.
fn narrow(mut candidates: Vec<Candidate>, mut bytes: u64, budget: u64) -> Result<Vec<OpId>, u64> {
    candidates.sort_by(|a, b| a.loss.total_cmp(&b.loss));
    let mut narrow = vec![];
    for Candidate { id, saved, .. } in candidates {
        if bytes <= budget {
            break;
        }
        bytes -= saved;
        narrow.push(id);
    }
    if bytes > budget { Err(bytes) } else { Ok(narrow) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let of = |(id, (loss, saved)): (usize, (f64, u64))| Candidate { id: id.into(), loss, saved };
        [(3.0, 100), (1.0, 10), (2.0, 50)].into_iter().enumerate().map(of).collect()
    }

    #[test]
    fn the_least_loss_goes_first_and_no_more_than_needed() {
        let chosen = |budget| narrow(candidates(), 1000, budget).map(|ids| ids.into_iter().map(usize::from).collect());
        assert_eq!(chosen(1000), Ok(vec![]));
        assert_eq!(chosen(990), Ok(vec![1]));
        assert_eq!(chosen(989), Ok(vec![1, 2]));
        assert_eq!(chosen(840), Ok(vec![1, 2, 0]));
        assert_eq!(chosen(839), Err(840), "what is needed is told");
    }
}
