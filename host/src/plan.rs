//! Memory: lifetimes, results written over what they replace, and addresses.
//!
//! A buffer is one or more tensors at one address, each taking over from the one before; its size therefore changes
//! with time. Buffers are placed greedily, largest first (ties: start, then number), each at the lowest address that is
//! free during its whole life; where that misses the live-set lower bound, other orders are searched.

use typed_index_collections::{TiSlice, TiVec};
use waft::format::Element;

use crate::graph::{Graph, Op as GraphOp};
use crate::network::{Conv2d, Network, Op, Role, TensorId};

/// Multiple of every address and size in the arena.
pub const ALIGN: u64 = waft::format::ALIGN as u64;

/// Bytes that a tensor holds over a span of operations, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: usize,
    last: usize,
    bytes: u64,
}

/// Tensors that share an address.
#[derive(Clone, Debug, Default)]
struct Buffer {
    spans: Vec<Span>,
}

impl Buffer {
    fn peak(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes).max().unwrap_or(0)
    }

    fn first(&self) -> usize {
        self.spans.iter().map(|span| span.first).min().unwrap_or(0)
    }
}

/// Where one tensor lies and when it holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First byte in the arena.
    pub offset: u64,
    /// Bytes, unaligned.
    pub bytes: u64,
    /// First operation during which it holds data.
    pub first: usize,
    /// Last operation during which it holds data; the number of operations stands for the sampler.
    pub last: usize,
}

/// An arena.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One for each tensor of the network.
    pub placements: TiVec<TensorId, Placement>,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// The largest sum of live buffers over time: no placement can do with less.
    pub lower_bound_bytes: u64,
}

impl Plan {
    /// The largest number of tensors that hold data during one operation.
    pub fn most_alive(&self) -> usize {
        let ends = self.placements.iter().map(|placement| placement.last + 1).max().unwrap_or(0);
        let mut changes = vec![0isize; ends + 1];
        for placement in &self.placements {
            changes[placement.first] += 1;
            changes[placement.last + 1] -= 1;
        }
        let alive = changes.iter().scan(0, |alive, change| {
            *alive += change;
            Some(*alive)
        });
        alive.max().map_or(0, isize::unsigned_abs)
    }
}

/// Lifetimes, and which tensors share an address.
struct Lives {
    bytes: TiVec<TensorId, u64>,
    first: TiVec<TensorId, usize>,
    last: TiVec<TensorId, usize>,
    buffer_of: TiVec<TensorId, usize>,
    buffers: Vec<Buffer>,
}

fn lives(network: &Network, elements: &TiSlice<TensorId, Element>) -> Lives {
    let ends = network.ops.len();
    let bytes: TiVec<TensorId, u64> =
        network.tensors.iter().zip(elements).map(|(tensor, e)| (tensor.shape.len() * e.bytes()) as u64).collect();
    let mut first: TiVec<TensorId, usize> = bytes.iter().map(|_| usize::MAX).collect();
    let mut last: TiVec<TensorId, usize> = bytes.iter().map(|_| 0).collect();
    for (time, (_, op)) in network.ops.iter().enumerate() {
        for id in op.inputs().into_iter().chain(op.scratch()).chain([op.output()]) {
            first[id] = first[id].min(time);
            last[id] = last[id].max(time);
        }
    }
    for id in network.kept() {
        (first[id], last[id]) = (0, ends);
    }
    for id in [Some(network.prediction), network.variance, network.gradient].into_iter().flatten() {
        last[id] = ends;
    }
    // What is computed once a run is there for all of its steps.
    for (_, op) in network.ops.iter().take(network.once) {
        let output = op.output();
        if last[output] >= network.once {
            last[output] = ends;
        }
    }

    // Join each result to the operand it may overwrite.
    let mut buffer_of: TiVec<TensorId, usize> = (0..bytes.len()).collect();
    for (time, (_, op)) in network.ops.iter().enumerate() {
        let output = op.output();
        let dies = |id: TensorId| {
            last[id] == time && !matches!(network.tensors[id].role, Role::Sample | Role::Condition | Role::Observation)
        };
        let target = match op {
            Op::Attention(attention) => Some(attention.query),
            Op::LinearAttention(attention) => Some(attention.query),
            Op::Activate(op) => {
                let fits = |&id: &TensorId| dies(id) && elements[id] == elements[output];
                [Some(op.source), op.residual].into_iter().flatten().find(fits)
            }
            Op::LayerNorm(op) => {
                let fits = |&id: &TensorId| dies(id) && elements[id] == elements[output];
                [Some(op.source), op.residual].into_iter().flatten().find(fits)
            }
            Op::Conv2d(conv) => {
                let residual = conv.residual.map(|(id, _)| id).filter(|&id| {
                    dies(id)
                        && elements[id].bytes() == elements[output].bytes()
                        && may_overwrite(network, conv, id, &bytes)
                });
                let source = || {
                    conv.sources
                        .iter()
                        .copied()
                        .find(|&id| dies(id) && Some(id) != conv.norm && may_overwrite(network, conv, id, &bytes))
                };
                residual.or_else(source)
            }
            _ => None,
        };
        if let Some(target) = target {
            buffer_of[output] = buffer_of[target];
        }
    }

    let mut buffers = vec![Buffer::default(); bytes.len()];
    for (id, &bytes) in bytes.iter_enumerated() {
        let span = Span { first: first[id], last: last[id], bytes: bytes.next_multiple_of(ALIGN) };
        buffers[buffer_of[id]].spans.push(span);
    }
    Lives { bytes, first, last, buffer_of, buffers }
}

/// Bytes that are live during each operation of a network whose tensors have the given elements.
pub fn live_bytes(network: &Network, elements: &TiSlice<TensorId, Element>) -> Vec<u64> {
    let buffers = lives(network, elements).buffers;
    (0..network.ops.len()).map(|time| buffers.iter().map(|buffer| live(buffer, time)).sum()).collect()
}

/// Plans the arena of a network whose tensors have the given elements.
pub fn plan(network: &Network, elements: &TiSlice<TensorId, Element>) -> Plan {
    let Lives { bytes, first, last, buffer_of, buffers } = lives(network, elements);
    let lower_bound_bytes = lower_bound(&buffers, network.ops.len());
    let (offsets, arena_bytes) = place(&buffers, lower_bound_bytes);
    let placements = bytes
        .iter_enumerated()
        .map(|(id, &bytes)| Placement { offset: offsets[buffer_of[id]], bytes, first: first[id], last: last[id] })
        .collect();
    Plan { placements, arena_bytes, lower_bound_bytes }
}

/// The same if it takes at most `limit` bytes.
pub fn plan_within(network: &Network, elements: &TiSlice<TensorId, Element>, limit: u64) -> Option<Plan> {
    let Lives { buffers, .. } = lives(network, elements);
    let is_possible = lower_bound(&buffers, network.ops.len()) <= limit;
    is_possible.then(|| plan(network, elements)).filter(|plan| plan.arena_bytes <= limit)
}

/// Whether an arena of `limit` bytes is enough for what [`plan`] makes.
pub fn fits(network: &Network, elements: &TiSlice<TensorId, Element>, limit: u64) -> bool {
    let Lives { buffers, .. } = lives(network, elements);
    lower_bound(&buffers, network.ops.len()) <= limit && place(&buffers, limit).1 <= limit
}

/// Whether a convolution may write its result to the address of its dying operand `id`: never before the rows that it
/// replaces have been read. The model file's validation checks the same independently.
fn may_overwrite(network: &Network, conv: &Conv2d, id: TensorId, bytes: &TiSlice<TensorId, u64>) -> bool {
    if !conv.sources.contains(&id) {
        return true;
    }
    // Each chunk of streamed weights reads the sources again.
    if conv.window.is_some_and(|window| window.chunks > 1) {
        return false;
    }
    let (from, to) = (network.tensors[id].shape, network.tensors[conv.output].shape);
    let (from_row, to_row) = (bytes[id] / from.h as u64, bytes[conv.output] / to.h as u64);
    (0..to.h).all(|y| {
        let next = (y * conv.conv.stride + conv.conv.kernel[0]).saturating_sub(conv.conv.padding[0]);
        let unread = if conv.upsample { next / 2 } else { next };
        unread >= from.h || (y as u64 + 1) * to_row <= unread as u64 * from_row
    })
}

/// The largest sum of live bytes over time; a buffer counts its largest tensor at each time.
fn lower_bound(buffers: &[Buffer], ends: usize) -> u64 {
    (0..=ends).map(|time| buffers.iter().map(|buffer| live(buffer, time)).sum()).max().unwrap_or(0)
}

fn live(buffer: &Buffer, time: usize) -> u64 {
    buffer.spans.iter().filter(|span| span.first <= time && time <= span.last).map(|span| span.bytes).max().unwrap_or(0)
}

/// A buffer that holds data at the same time as another: its number, and the bytes of both during that time.
#[derive(Clone, Copy, Debug)]
struct Conflict {
    other: usize,
    ours: u64,
    theirs: u64,
}

/// The conflicts of each buffer.
fn conflicts(buffers: &[Buffer]) -> Vec<Vec<Conflict>> {
    let of = |(b, buffer): (usize, &Buffer)| {
        let mut found = vec![];
        for (other, _) in buffers.iter().enumerate().filter(|&(other, _)| other != b) {
            for theirs in &buffers[other].spans {
                let meet = |ours: &&Span| theirs.first <= ours.last && ours.first <= theirs.last;
                let conflict = |ours: &Span| Conflict { other, ours: ours.bytes, theirs: theirs.bytes };
                found.extend(buffer.spans.iter().filter(meet).map(conflict));
            }
        }
        found
    };
    buffers.iter().enumerate().map(of).collect()
}

/// Addresses and the arena's size: greedy by size, then, if above what is enough, a bounded search over other orders.
fn place(buffers: &[Buffer], enough: u64) -> (Vec<u64>, u64) {
    let peaks: Vec<u64> = buffers.iter().map(Buffer::peak).collect();
    let conflicts = conflicts(buffers);
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&b| !buffers[b].spans.is_empty()).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(peaks[b]), buffers[b].first(), b));
    let mut best = place_in_order(&peaks, &conflicts, &order, u64::MAX).unwrap_or_default();
    // Deterministic local search: move one buffer to the front of the order and keep what does not get worse.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let tries = if buffers.len() > 400 { 200 } else { 4000 };
    for _ in 0..tries {
        if best.1 <= enough {
            break;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = (state >> 33) as usize % order.len();
        let to = (state >> 13) as usize % (from + 1);
        order[to..=from].rotate_right(1);
        match place_in_order(&peaks, &conflicts, &order, best.1) {
            Some(placed) => best = placed,
            None => order[to..=from].rotate_left(1),
        }
    }
    best
}

/// The address of each buffer and the arena's size; `None` if that is more than `most`.
fn place_in_order(peaks: &[u64], conflicts: &[Vec<Conflict>], order: &[usize], most: u64) -> Option<(Vec<u64>, u64)> {
    let mut offsets: Vec<Option<u64>> = vec![None; peaks.len()];
    let mut blocked: Vec<(u64, u64)> = vec![];
    let mut end = 0;
    for &b in order {
        // Address ranges in which the buffer's first byte cannot lie.
        blocked.clear();
        blocked.extend(conflicts[b].iter().filter_map(|conflict| {
            let offset = offsets[conflict.other]?;
            Some(((offset + 1).saturating_sub(conflict.ours), offset + conflict.theirs))
        }));
        blocked.sort_unstable();
        let mut at = 0;
        for &(start, stop) in &blocked {
            if at < start {
                break;
            }
            at = at.max(stop);
        }
        offsets[b] = Some(at);
        end = end.max(at + peaks[b]);
        if end > most {
            return None;
        }
    }
    Some((offsets.into_iter().map(Option::unwrap_or_default).collect(), end))
}

/// Arena of the same graph with one byte an element and the result of every node in a buffer of its own: what a runtime
/// without these rewrites needs.
pub fn materialized_bytes(graph: &Graph) -> u64 {
    let ends = graph.nodes.len();
    let mut buffers: Vec<Buffer> = vec![];
    for (id, tensor) in graph.tensors.iter().enumerate() {
        let id = crate::graph::TensorId(id);
        let first = graph.nodes.iter().position(|node| node.output == id).unwrap_or(0);
        let last = graph.nodes.iter().rposition(|node| node.inputs.contains(&id)).unwrap_or(ends);
        let last = if id == graph.input || id == graph.output { ends } else { last };
        let bytes = (tensor.shape.len() as u64).next_multiple_of(ALIGN);
        buffers.push(Buffer { spans: vec![Span { first, last, bytes }] });
    }
    // The matrix of scores, and of probabilities, is a result too.
    for (index, node) in graph.nodes.iter().enumerate() {
        if let GraphOp::Attention { heads, .. } = &node.op {
            let pixels = graph.shape(node.output).pixels() as u64;
            let bytes = (*heads as u64 * pixels * pixels).next_multiple_of(ALIGN);
            buffers.push(Buffer { spans: vec![Span { first: index, last: index, bytes }] });
        }
    }
    let bound = lower_bound(&buffers, ends);
    place(&buffers, bound).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> Vec<Buffer> {
        let span = |(first, last, bytes)| Span { first, last, bytes };
        let of = |spans: &[(usize, usize, u64)]| Buffer { spans: spans.iter().copied().map(span).collect() };
        vec![
            of(&[(0, 2, 48), (2, 5, 16)]),
            of(&[(1, 1, 32)]),
            of(&[]),
            of(&[(3, 7, 64)]),
            of(&[(0, 7, 16)]),
            of(&[(5, 6, 48)]),
        ]
    }

    /// By comparison of every two spans, and of every address with every other.
    #[test]
    fn buffers_that_meet_in_time_do_not_meet_in_the_arena() {
        let buffers = buffers();
        let (offsets, arena) = place(&buffers, 0);
        assert!(arena >= lower_bound(&buffers, 7));
        for (a, b) in (0..buffers.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            for (ours, theirs) in buffers[a].spans.iter().flat_map(|a| buffers[b].spans.iter().map(move |b| (a, b))) {
                let apart = offsets[a] + ours.bytes <= offsets[b] || offsets[b] + theirs.bytes <= offsets[a];
                assert!(apart || ours.last < theirs.first || theirs.last < ours.first, "{a} and {b}");
            }
        }
        let ends = buffers.iter().zip(&offsets).map(|(buffer, offset)| offset + buffer.peak());
        assert_eq!(ends.max(), Some(arena));
    }

    /// The search ends where a result is small enough, and a result that is too large is given up early.
    #[test]
    fn a_limit_ends_the_search() {
        let buffers = buffers();
        let arena = place(&buffers, 0).1;
        assert!((arena..=arena + 64).all(|limit| place(&buffers, limit).1 <= limit));
        let peaks: Vec<u64> = buffers.iter().map(Buffer::peak).collect();
        let order: Vec<usize> = vec![0, 1, 3, 4, 5];
        let placed = place_in_order(&peaks, &conflicts(&buffers), &order, u64::MAX).expect("no limit");
        assert_eq!(place_in_order(&peaks, &conflicts(&buffers), &order, placed.1), Some(placed.clone()));
        assert_eq!(place_in_order(&peaks, &conflicts(&buffers), &order, placed.1 - 1), None);
    }
}
