//! From emitted records to a validated file, and the limits of the format.

use typed_index_collections::{TiSlice, TiVec};
use waft::Model;
use waft::format::{Element, MAX_ALIVE, WeightLayout};

use super::{ExportError, Room};
use crate::cost::Core;
use crate::emit::Emitted;
use crate::network::{Network, OpId, TensorId};
use crate::patches::{default_limit, with_patches};
use crate::plan::{Plan, plan};
use crate::sample::AlignedBytes;
use crate::stream::with_windows;
use crate::write::{Fields, Writer};

const MOST_ARENA: u64 = 1 << 30;
const MOST_BYTES: u64 = 1 << 31;
/// Most tensors, and most operations: one index means "none".
const MOST_INDICES: u64 = 65_534;
const MOST_SIDE: usize = 65_535;

/// A file, and that of its weights, which is empty if they are not streamed.
pub(super) struct File {
    pub bytes: AlignedBytes,
    pub weights: Vec<u8>,
}

impl File {
    /// Writes and validates the file.
    pub(super) fn write(writer: Writer, fields: &Fields, emitted: &Emitted) -> Result<Self, ExportError> {
        if writer.len() as u64 > MOST_BYTES {
            let advice = "export in a smaller precision";
            let value = writer.len() as u64;
            return Err(ExportError::TooLarge { what: "bytes of the file", value, limit: MOST_BYTES, advice });
        }
        let (bytes, weights) = writer.finish(fields, &emitted.tensors, &emitted.ops, &emitted.schedules);
        let file = Self { bytes: AlignedBytes::copy_of(&bytes), weights };
        file.model()?;
        Ok(file)
    }

    /// The file as a model.
    pub(super) fn model(&self) -> Result<Model<'_>, ExportError> {
        Ok(Model::from_bytes(self.bytes.as_slice())?)
    }
}

/// A network with the place of everything that it needs in the arena.
pub(super) struct Layout {
    pub network: Network,
    pub elements: TiVec<TensorId, Element>,
    pub plan: Plan,
}

impl Layout {
    /// The same with patches. Where weights are streamed, memory comes first: then they get what is free.
    pub(super) fn with_patches(
        self,
        layouts: &TiSlice<OpId, WeightLayout>,
        core: &Core,
        room: Room,
    ) -> Result<Self, ExportError> {
        let Self { network, mut elements, plan } = self;
        let streams = network.convs().any(|(_, conv)| conv.window.is_some());
        let limit = match room {
            Room::None => return Self { network, elements, plan }.within_limits(),
            _ if streams => plan.arena_bytes,
            Room::Bytes(bytes) => bytes.max(plan.arena_bytes),
            Room::Third => default_limit(plan.arena_bytes),
        };
        let (network, plan) = with_patches(&network, &mut elements, layouts, core, limit.min(MOST_ARENA));
        Self { network, elements, plan }.within_limits()
    }

    /// Plans the arena. With `stream`, weights of the given layouts pass through windows of at most that many bytes.
    pub(super) fn new(
        network: &Network,
        mut elements: TiVec<TensorId, Element>,
        layouts: &TiSlice<OpId, WeightLayout>,
        stream: Option<u64>,
    ) -> Result<Self, ExportError> {
        let network = match stream {
            None => network.clone(),
            Some(limit) => with_windows(network, &elements, layouts, limit)
                .map_err(|window| ExportError::Window { limit, window })?,
        };
        elements.resize(network.tensors.len(), Element::I8);
        let plan = plan(&network, &elements);
        Self { network, elements, plan }.within_limits()
    }

    /// Itself, if the format can hold it.
    fn within_limits(self) -> Result<Self, ExportError> {
        let Self { network, plan, .. } = &self;
        let advice = "reduce the model";
        for (what, value, limit) in [
            ("bytes of the arena", plan.arena_bytes, MOST_ARENA),
            ("the number of tensors", network.tensors.len() as u64, MOST_INDICES),
            ("the number of tensors that hold data at once", plan.most_alive() as u64, MAX_ALIVE as u64),
            ("the number of operations", network.ops.len() as u64, MOST_INDICES),
        ] {
            if value > limit {
                return Err(ExportError::TooLarge { what, value, limit, advice });
            }
        }
        let is_long = |shape: crate::graph::Shape| [shape.h, shape.w, shape.c].into_iter().any(|side| side > MOST_SIDE);
        if let Some(tensor) = network.tensors.iter().find(|tensor| is_long(tensor.shape)) {
            return Err(ExportError::Dimension { tensor: tensor.name.clone(), shape: tensor.shape });
        }
        Ok(self)
    }
}
