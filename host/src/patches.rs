//! Memory for speed: what convolutions may unfold or transform their input into, besides the ring.
//!
//! - Patches of four pixels are worth 8 bytes a tap, and cut the instructions of a convolution to a third where the processor
//!   multiplies two pairs at once: each weight is loaded once for four pixels.
//! - Tiles of 4×4 outputs (Winograd, see `runtime/src/arch/winograd.rs`) need a quarter of the products of a 3×3 kernel over a
//!   ring of 8 bits, tiles of 2×2 outputs four ninths over one of 16, in which values then have 14 bits at most. They are worth
//!   4 bytes for each input channel and point of a pair of tiles, as much once more for weights, and more rows of the ring.
//! - Where the file may have the weights of tiles transformed ([`stored`]), they need no room, and one row of tiles is enough.
//!
//! A convolution without either reads its ring as it is. The result is the same bit for bit. Which of them is the fastest depends
//! on the core: [`cost`] says how many instructions each takes.

use bytemuck::Zeroable;
use typed_index_collections::{TiSlice, TiVec};
use waft::format::{self, Element, PATCH_GROUP, PATCH_PIXELS, Tiling, WeightLayout};

use crate::cost::{self, Convolution, Core};
use crate::graph::Shape;
use crate::network::{Conv2d, Network, Op, OpId, Role, TensorId};
use crate::plan::{ALIGN, Plan, live_bytes, plan, plan_within};
use crate::target_core;

/// Output columns from which patches are worth it: a row with fewer leaves most of them unused.
const FEWEST: usize = 3;

/// Outputs for which weights are to be transformed once.
const OUTPUTS: usize = 256;

/// The share of the arena by which patches and tiles may enlarge it where no budget is given.
const GROWTH: u64 = 3;

/// The most bytes of an arena of `arena_bytes` with patches and tiles.
pub fn default_limit(arena_bytes: u64) -> u64 {
    arena_bytes + arena_bytes / GROWTH
}

/// What a convolution unfolds its input into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Some rows of tiles at once.
    Tiles(Tiling, usize),
    /// A row of tiles, whose weights come transformed from the file.
    StoredTiles(Tiling),
    Patches,
}

impl Way {
    /// The tiles and their rows.
    fn tiles(self) -> Option<(Tiling, usize)> {
        match self {
            Way::Tiles(tiling, rows) => Some((tiling, rows)),
            Way::StoredTiles(tiling) => Some((tiling, 1)),
            Way::Patches => None,
        }
    }
}

/// A convolution and what it may do, the best last.
struct Candidate {
    id: OpId,
    /// Bytes that are live besides.
    live: u64,
    /// Each with its bytes.
    ways: Vec<(Way, u64)>,
}

impl Candidate {
    /// The most that is live with the way that is chosen.
    fn bytes(&self) -> u64 {
        self.live + self.ways.last().map_or(0, |(_, bytes)| *bytes)
    }
}

/// The network with patches and tiles, which are its last tensors, for as many convolutions as an arena of at most `limit`
/// bytes has room for, each in the fastest way on `core` that has room, and its plan; `elements` gets those of the new tensors.
/// Weights of four bits meet patches only.
pub fn with_patches(
    network: &Network,
    elements: &mut TiVec<TensorId, Element>,
    layouts: &TiSlice<OpId, WeightLayout>,
    core: &Core,
    limit: u64,
) -> (Network, Plan) {
    let live = live_bytes(network, elements);
    let is_integer = |id: OpId| matches!(layouts[id], WeightLayout::Rows8 | WeightLayout::Groups4);
    let mut candidates: Vec<Candidate> = network
        .convs()
        .filter(|&(id, _)| is_integer(id))
        .map(|(id, conv)| {
            let mut ways = ways(network, conv, elements, core);
            ways.retain(|&(way, _)| way == Way::Patches || layouts[id] == WeightLayout::Rows8);
            Candidate { id, live: live[usize::from(id)], ways }
        })
        .collect();
    for candidate in &mut candidates {
        while candidate.bytes() > limit && candidate.ways.pop().is_some() {}
    }
    candidates.retain(|candidate| !candidate.ways.is_empty());
    loop {
        let network = laid_out(network, elements, &candidates);
        // Those that need most make way first.
        let Some(most) = candidates.iter_mut().max_by_key(|candidate| (candidate.bytes(), candidate.id)) else {
            let plan = plan(&network, elements);
            return (network, plan);
        };
        if let Some(plan) = plan_within(&network, elements, limit) {
            return (network, plan);
        }
        most.ways.pop();
        candidates.retain(|candidate| !candidate.ways.is_empty());
    }
}

/// The network with what is chosen.
fn laid_out(network: &Network, elements: &mut TiVec<TensorId, Element>, candidates: &[Candidate]) -> Network {
    elements.truncate(network.tensors.len());
    let mut network = network.clone();
    for (_, op) in &mut network.ops {
        if let Op::Conv2d(conv) = op {
            conv.stored_tiles = false;
        }
    }
    for Candidate { id, ways, .. } in candidates {
        let (Some(&(way, _)), Op::Conv2d(conv)) = (ways.last(), &network.ops[*id].1) else { continue };
        let shape = shape(&network, conv, way);
        let (kind, ring) = (if way == Way::Patches { "patches" } else { "tiles" }, conv.ring);
        let tensor = network.tensor(format!("{} ({kind})", network.ops[*id].0), shape, Role::Patches);
        elements.push(Element::I32);
        if let Op::Conv2d(conv) = &mut network.ops[*id].1 {
            conv.patches = Some(tensor);
            if let Some(record) = record(conv, way) {
                (conv.tile_rows, conv.ring_limit) = (record.tile_rows.into(), record.ring_limit);
                network.tensors[ring].shape.h = record.ring_rows();
            }
            conv.stored_tiles = matches!(way, Way::StoredTiles(_));
        }
    }
    network
}

/// What a convolution may unfold its input into, the best last, with the bytes that it takes.
fn ways(network: &Network, conv: &Conv2d, elements: &TiSlice<TensorId, Element>, core: &Core) -> Vec<(Way, u64)> {
    let output = conv.computed(&network.tensors);
    let bytes = |way| (shape(network, conv, way).len() * Element::I32.bytes()) as u64;
    let mut ways = vec![];
    // The only pixel of a dense layer is taken at once with several channels.
    if output.w >= FEWEST || output.h * output.w == 1 {
        ways.push((Way::Patches, bytes(Way::Patches)));
    }
    let (ring, element) = (network.tensors[conv.ring].shape, elements[conv.ring]);
    let tiling = tiling(element);
    let stored = conv.stored_tiles.then_some(Way::StoredTiles(tiling));
    for way in (1..=most_rows(output, tiling)).map(|rows| Way::Tiles(tiling, rows)).chain(stored) {
        if let Some(record) = may_tile(network, conv, way, core) {
            let rows_more = (record.ring_rows() - ring.h) * ring.w * ring.c * element.bytes();
            ways.push((way, bytes(way) + rows_more as u64));
        }
    }
    // The fastest last; what is not worth its memory is left out.
    let cost = |&(way, _): &(Way, u64)| estimate(core, conv, output, element, Some(way));
    ways.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
    ways
}

/// The tiles that a ring of such elements has.
fn tiling(ring: Element) -> Tiling {
    if ring == Element::I8 { Tiling::Four } else { Tiling::Two }
}

/// The instructions on a core that a convolution with weights of eight bits over a ring of `element` takes, its gather apart;
/// without a way it reads the ring as it is.
fn estimate(core: &Core, conv: &Conv2d, output: Shape, element: Element, way: Option<Way>) -> f64 {
    let layout = if let Some(Way::StoredTiles(tiling)) = way { tiling.layout() } else { WeightLayout::Rows8 };
    let way = match way.map(Way::tiles) {
        None => cost::Way::Ring,
        Some(None) => cost::Way::Patches,
        Some(Some((_, rows))) => cost::Way::Tiles(rows),
    };
    let (output, inputs) = ([output.h, output.w, output.c], conv.conv.inputs);
    let work = Convolution { element, layout, way, output, inputs, kernel: conv.conv.kernel }.work();
    cost::instructions(core, &work).expect("a test has seen that each core was measured with every way")
}

/// As many rows of tiles as give weights enough outputs to meet.
fn most_rows(output: Shape, tiling: Tiling) -> usize {
    (OUTPUTS / (output.w * tiling.side()).max(1)).max(1)
}

/// The record of a convolution whose weights have eight bits, if it may be computed by such tiles, and they are worth their
/// memory: they take enough less than patches, or just less where flash is spent on them.
fn may_tile(network: &Network, conv: &Conv2d, way: Way, core: &Core) -> Option<format::Conv2d> {
    let output = conv.computed(&network.tensors);
    let shape = [output.h, output.w, output.c];
    let (tiling, _) = way.tiles()?;
    let element = if tiling == Tiling::Four { Element::I8 } else { Element::I16 };
    let instructions = |way| estimate(core, conv, output, element, Some(way));
    let share = if matches!(way, Way::StoredTiles(_)) { 1.0 } else { target_core::worth(core) };
    let is_worth_it = instructions(way) <= share * instructions(Way::Patches);
    record(conv, way).filter(|record| is_worth_it && record.tiles(conv.conv.inputs as u64, shape))
}

/// The convolutions whose weights the file is to have as tiles need them, where it may grow by `room` bytes: first those that
/// save the most instructions for each byte. `network` has patches and tiles as they are without, `elements` are those of its
/// tensors, `layouts` those of its weights.
pub fn stored(
    network: &Network,
    elements: &TiSlice<TensorId, Element>,
    layouts: &TiSlice<OpId, WeightLayout>,
    core: &Core,
    mut room: u64,
) -> Vec<OpId> {
    let mut candidates = vec![];
    for (id, conv) in network.convs().filter(|&(id, _)| layouts[id] == WeightLayout::Rows8) {
        let element = elements[conv.ring];
        let tiling = tiling(element);
        let way = Way::StoredTiles(tiling);
        if may_tile(network, conv, way, core).is_none() {
            continue;
        }
        let output = conv.computed(&network.tensors);
        let now = match (conv.patches, conv.tile_rows) {
            (None, _) => None,
            (_, 0) => Some(Way::Patches),
            (_, rows) => Some(Way::Tiles(tiling, rows)),
        };
        let instructions = |way| estimate(core, conv, output, element, way);
        let saved = instructions(now) - instructions(Some(way));
        let bytes = |layout: WeightLayout| layout.bytes(output.c as u64, conv.taps() as u64).next_multiple_of(ALIGN);
        let tensor = if conv.patches.is_none() { size_of::<format::Tensor>() as u64 } else { 0 };
        let more = bytes(tiling.layout()) - bytes(WeightLayout::Rows8) + tensor.next_multiple_of(ALIGN);
        if saved > 0.0 {
            candidates.push((saved / more as f64, more, id));
        }
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut chosen = vec![];
    for (_, more, id) in candidates {
        if more <= room {
            room -= more;
            chosen.push(id);
        }
    }
    chosen
}

/// How far from zero values of a convolution's ring of 16 bits may be so that tiles can take it; `None` if they cannot
/// anyway. Whether there is room for tiles is seen when everything else is decided.
pub fn ring_limit(network: &Network, conv: &Conv2d, core: &Core) -> Option<u16> {
    let output = conv.computed(&network.tensors);
    let on_device = (1..=most_rows(output, Tiling::Two)).map(|rows| Way::Tiles(Tiling::Two, rows));
    let stored = conv.stored_tiles.then_some(Way::StoredTiles(Tiling::Two));
    let fits = on_device.chain(stored).any(|way| may_tile(network, conv, way, core).is_some());
    fits.then(|| Tiling::Two.ring_limit(conv.conv.inputs as u64))
}

/// The shape of the tensor of patches or tiles.
fn shape(network: &Network, conv: &Conv2d, way: Way) -> Shape {
    match record(conv, way) {
        None => Shape::new(1, conv.taps().div_ceil(PATCH_GROUP), 2 * PATCH_PIXELS),
        Some(record) => {
            let columns = conv.computed(&network.tensors).w;
            let inputs = conv.conv.inputs;
            Shape::new(1, record.tile_columns(columns, inputs as u64), inputs)
        }
    }
}

/// What tiles depend on, as the file has it; `None` without tiles.
fn record(conv: &Conv2d, way: Way) -> Option<format::Conv2d> {
    let (tiling, rows) = way.tiles()?;
    let layout = if matches!(way, Way::StoredTiles(_)) { tiling.layout() } else { WeightLayout::Rows8 };
    Some(format::Conv2d {
        kernel: conv.conv.kernel.map(|size| size as u8),
        stride: conv.conv.stride as u8,
        layout: layout.code(),
        tile_rows: rows as u8,
        ring_limit: tiling.ring_limit(conv.conv.inputs as u64),
        ..Zeroable::zeroed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::rewrite;
    use crate::rewrite::testing::{conv, graph};

    /// A network of two convolutions, and what it needs without patches.
    fn network() -> (Network, TiVec<TensorId, Element>, TiVec<OpId, WeightLayout>, u64) {
        let mut graph = graph(8, 3);
        let a = graph.node("a", conv(3, 16), &[graph.input]);
        graph.output = graph.node("b", conv(16, 3), &[a]);
        let network = rewrite(&graph, false).expect("folds");
        let elements: TiVec<TensorId, Element> = network.tensors.iter().map(|_| Element::I16).collect();
        let layouts = network.ops.iter().map(|_| WeightLayout::Rows8).collect();
        let arena = plan(&network, &elements).arena_bytes;
        (network, elements, layouts, arena)
    }

    fn patched(network: &Network) -> Vec<bool> {
        network.convs().map(|(_, conv)| conv.patches.is_some()).collect()
    }

    #[test]
    fn patches_take_the_room_that_there_is() {
        let (network, elements, layouts, arena) = network();
        for limit in [arena, arena + 300, arena + 2000] {
            let mut elements = elements.clone();
            let (patched_network, plan) =
                with_patches(&network, &mut elements, &layouts, target_core::default_core(), limit);
            assert!(plan.arena_bytes <= limit);
            assert_eq!(elements.len(), patched_network.tensors.len());
        }
        let mut elements = elements;
        let (all, _) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), arena + 2000);
        assert_eq!(patched(&all), [true, true]);
        // 3·9 taps are seven groups of four, for four pixels of 16 bits: 224 bytes.
        let first = all.convs().next().and_then(|(_, conv)| conv.patches).expect("patches");
        assert_eq!(all.tensors[first].shape.len() * 4, 224);
        let (none, plan) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), 0);
        assert_eq!((patched(&none), plan.arena_bytes), (vec![false, false], arena));
    }

    /// Maps of one pixel and of rows of four have patches, rows of two have none.
    #[test]
    fn rows_are_long_enough_or_the_only_pixel() {
        let has_patches = |side: usize| {
            let mut graph = graph(side, 8);
            graph.output = graph.node("a", conv(8, 8), &[graph.input]);
            let network = rewrite(&graph, false).expect("folds");
            let layouts: TiVec<OpId, WeightLayout> = network.ops.iter().map(|_| WeightLayout::Rows8).collect();
            let mut elements: TiVec<TensorId, Element> = network.tensors.iter().map(|_| Element::I16).collect();
            patched(&with_patches(&network, &mut elements, &layouts, target_core::default_core(), u64::MAX).0)
        };
        assert_eq!([1, 2, 4].map(has_patches), [[true], [false], [true]]);
    }

    #[test]
    fn tiles_need_room_and_whole_pairs() {
        let mut graph = graph(8, 60);
        let a = graph.node("a", conv(60, 64), &[graph.input]);
        graph.output = graph.node("b", conv(64, 60), &[a]);
        let network = rewrite(&graph, false).expect("folds");
        let layouts: TiVec<OpId, WeightLayout> = network.ops.iter().map(|_| WeightLayout::Rows8).collect();
        let tiles = |element: Element, limit: u64| -> Vec<(usize, usize)> {
            let mut elements: TiVec<TensorId, Element> = network.tensors.iter().map(|_| element).collect();
            let (tiled, _) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), limit);
            tiled.convs().map(|(_, conv)| (conv.tile_rows, tiled.tensors[conv.ring].shape.h)).collect()
        };
        // Two rows of two tiles, or four of four, are all that 8×8 pixels have: 8 rows of output are 10 of the ring.
        assert_eq!(tiles(Element::I8, u64::MAX), [(2, 10), (2, 10)]);
        assert_eq!(tiles(Element::I16, u64::MAX), [(4, 10), (4, 10)]);
        assert_eq!(tiles(Element::I8, 0), [(0, 3), (0, 3)]);
        // 64 channels, 36 words each for two pairs and weights, or 16 for eight pairs and weights; then four products for
        // each point and 8 sums of 64 pixels, 656 or 576 words.
        let conv = network.convs().nth(1).expect("two").1;
        assert_eq!(shape(&network, conv, Way::Tiles(Tiling::Four, 2)), Shape::new(1, 3 * 36 + 12, 64));
        assert_eq!(shape(&network, conv, Way::Tiles(Tiling::Two, 4)), Shape::new(1, 9 * 16 + 10, 64));
        assert_eq!(ring_limit(&network, conv, target_core::default_core()), Some(7281));
    }

    /// Flash is spent where it saves most for each byte, and no more than there is; a row of tiles is enough then.
    #[test]
    fn transformed_weights_take_the_flash_that_there_is() {
        let mut graph = graph(8, 16);
        let a = graph.node("a", conv(16, 64), &[graph.input]);
        let b = graph.node("b", conv(64, 64), &[a]);
        graph.output = graph.node("c", conv(64, 16), &[b]);
        let network = rewrite(&graph, false).expect("folds");
        let layouts: TiVec<OpId, WeightLayout> = network.ops.iter().map(|_| WeightLayout::Rows8).collect();
        let mut elements: TiVec<TensorId, Element> = network.tensors.iter().map(|_| Element::I8).collect();
        let (as_is, _) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), u64::MAX);
        let sizes = [16 * 64, 64 * 64, 64 * 16].map(|channels| 7 * 9 * channels as u64);
        let chosen = |room| -> Vec<usize> {
            let ids = stored(&as_is, &elements, &layouts, target_core::default_core(), room);
            ids.into_iter().map(|id| as_is.convs().position(|(other, _)| other == id).expect("one of three")).collect()
        };
        let [first, all] = [chosen(sizes[0]), chosen(u64::MAX)];
        assert_eq!((first.len(), all.len(), chosen(sizes[0] - 1).len()), (1, 3, 0));
        assert_eq!(
            (first[0], chosen(sizes[0] + sizes[2]).len()),
            (all.into_iter().find(|&at| at != 1).unwrap_or(1), 2)
        );
        let ids = stored(&as_is, &elements, &layouts, target_core::default_core(), sizes[1]);
        assert!(ids.len() == 1 || !ids.contains(&network.convs().nth(1).expect("three").0), "within the room");
        let mut flagged = network.clone();
        for (_, op) in &mut flagged.ops {
            if let Op::Conv2d(conv) = op {
                conv.stored_tiles = true;
            }
        }
        let (laid, _) = with_patches(&flagged, &mut elements, &layouts, target_core::default_core(), u64::MAX);
        let rows: Vec<_> = laid.convs().map(|(_, conv)| (conv.stored_tiles, conv.tile_rows)).collect();
        assert_eq!(rows, [(true, 1); 3]);
        let (none, _) = with_patches(&flagged, &mut elements, &layouts, target_core::default_core(), 0);
        assert!(none.convs().all(|(_, conv)| !conv.stored_tiles && conv.tile_rows == 0), "no room for tiles");
    }

    #[test]
    fn weights_of_four_bits_meet_patches_and_floats_none() {
        let (network, mut elements, mut layouts, arena) = network();
        layouts[OpId::from(1usize)] = WeightLayout::Groups4;
        let (mixed, _) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), 2 * arena);
        assert_eq!(patched(&mixed), [true, true]);
        layouts[OpId::from(1usize)] = WeightLayout::Groups16;
        let (mixed, _) = with_patches(&network, &mut elements, &layouts, target_core::default_core(), 2 * arena);
        assert_eq!(patched(&mixed), [true, false]);
    }
}
