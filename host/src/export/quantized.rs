//! The stage of the `i8` precision at which all weights are integers.

use typed_index_collections::TiVec;
use waft::Model;
use waft::format::{Precision, WeightLayout};

use super::calibrated::Calibrated;
use super::file::{File, Layout};
use super::prepared::Prepared;
use super::{ExportError, ExportOptions, Room, weights};
use crate::calibrate::output_gains;
use crate::emit;
use crate::emit::i8::{QuantizedConv, QuantizedConvs};
use crate::network::{Network, Op, OpId};
use crate::patches;
use crate::progress::Progress;
use crate::widths::{WeightWidth, WeightWidths, weight_widths};
use crate::write::Writer;

/// A network of integers.
pub(super) struct Quantized {
    pub calibrated: Calibrated,
    pub convs: QuantizedConvs,
    /// The most bytes of the arena with patches.
    room: Room,
    /// The convolutions whose weights the file may have as tiles need them.
    stored: Vec<OpId>,
}

impl Quantized {
    /// Rounds the weights to the widths that the options ask for.
    pub(super) fn new(
        calibrated: Calibrated,
        options: &ExportOptions,
        progress: &dyn Progress,
    ) -> Result<Self, ExportError> {
        let room = match (options.patches, options.budget_ram) {
            (Room::None, _) => Room::None,
            (_, Some(bytes)) => Room::Bytes(bytes),
            (room, None) => room,
        };
        let network = &calibrated.prepared.network;
        let Some(budget) = options.budget_flash else {
            let convs = round(&calibrated, network, &weight_widths(network, options.weights), progress);
            return Ok(Self { calibrated, convs, room, stored: vec![] });
        };
        let widths = weight_widths(network, WeightWidth::Eight);
        let convs = round(&calibrated, network, &widths, progress);
        let mut eight = Self { calibrated, convs, room, stored: vec![] };
        let bytes = eight.emit(None)?.bytes.as_slice().len() as u64;
        if bytes <= budget {
            eight.stored = eight.worth_storing(budget - bytes)?;
            if !eight.stored.is_empty() {
                // Tiles may ask for narrower rings.
                eight.convs = round(&eight.calibrated, &eight.network(), &widths, progress);
            }
            return Ok(eight);
        }
        let Self { calibrated, convs, .. } = eight;
        let network = &calibrated.prepared.network;
        let four = round(&calibrated, network, &weight_widths(network, WeightWidth::Four), progress);
        let widths = weights::within(network, &calibrated.seen, &four, [bytes, budget])?;
        let pick = |((width, eight), four)| match width {
            WeightWidth::Eight => eight,
            WeightWidth::Four => four,
        };
        let convs = widths.into_iter().zip(convs).zip(four).map(pick).collect();
        Ok(Self { calibrated, convs, room, stored: vec![] })
    }

    /// The network, with what the file may have as tiles need it.
    fn network(&self) -> Network {
        let mut network = self.prepared().network.clone();
        for &id in &self.stored {
            if let Op::Conv2d(conv) = &mut network.ops[id].1 {
                conv.stored_tiles = true;
            }
        }
        network
    }

    /// How the weights are laid out where nothing is transformed.
    fn layouts(&self) -> TiVec<OpId, WeightLayout> {
        let layout =
            |conv: &Option<QuantizedConv>| conv.as_ref().map_or(WeightLayout::Rows8, |conv| conv.width.layout());
        self.convs.iter().map(layout).collect()
    }

    /// The convolutions whose weights are worth so many bytes as tiles need them.
    fn worth_storing(&self, bytes: u64) -> Result<Vec<OpId>, ExportError> {
        if self.room == Room::None {
            return Ok(vec![]);
        }
        let layout = self.layout(None)?;
        Ok(patches::stored(&layout.network, &layout.elements, &self.layouts(), self.calibrated.core, bytes))
    }

    fn layout(&self, stream: Option<u64>) -> Result<Layout, ExportError> {
        let layouts = self.layouts();
        let network = self.network();
        let elements = self.calibrated.widths.elements(&network);
        Layout::new(&network, elements, &layouts, stream)?.with_patches(&layouts, self.calibrated.core, self.room)
    }

    pub(super) fn prepared(&self) -> &Prepared {
        &self.calibrated.prepared
    }

    /// Scales each step's prediction by what brings it nearest to that of `reference`, the `f32` model.
    pub(super) fn correct_outputs(
        &mut self,
        reference: &Model<'_>,
        progress: &dyn Progress,
    ) -> Result<(), ExportError> {
        let file = self.emit(None)?;
        let gains = output_gains(reference, &file.model()?, &self.calibrated.how, progress);
        for (list, gains) in self.calibrated.prepared.lists.iter_mut().zip(gains) {
            for (step, gain) in list.steps.iter_mut().zip(gains) {
                step.x0_m *= gain;
                step.next_m *= gain;
            }
        }
        Ok(())
    }

    /// Emits the file.
    pub(super) fn emit(&self, stream: Option<u64>) -> Result<File, ExportError> {
        let layout = self.layout(stream)?;
        let mut writer = Writer::default();
        let from = self.calibrated.quantization(&layout.network);
        let emitted = emit::i8::emit(from, &self.convs, &layout.plan, &layout.elements, &mut writer);
        self.prepared().finish(writer, Precision::I8, &layout, &emitted)
    }
}

fn round(calibrated: &Calibrated, network: &Network, widths: &WeightWidths, progress: &dyn Progress) -> QuantizedConvs {
    emit::i8::quantize(calibrated.quantization(network), widths, progress)
}
