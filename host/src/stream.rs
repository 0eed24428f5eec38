//! Streaming: cutting the weights of each convolution into chunks that pass through a window of the arena.
//!
//! Memory comes first. A network needs at least its live tensors and one block of eight output channels of weights at
//! every convolution; the largest such sum is the budget of all of them. Within it, and within what the caller grants, a
//! window takes all weights of its convolution, or else two chunks as large as possible, so that one is read while the
//! other is in use, or else one.

use waft::format::{CHANNEL_BLOCK, Precision};

use crate::emit::weight_layout;
use crate::graph::Shape;
use crate::lower::{Network, Op, Role, Tensor, Window};
use crate::plan::{ALIGN, live_bytes};

/// The network with windows of at most `limit` bytes, which are its last tensors.
///
/// # Errors
/// The name of a convolution and the bytes that its window needs, if that is more.
pub fn with_windows(
    network: &Network,
    element_bytes: &[u64],
    precision: Precision,
    limit: u64,
) -> Result<Network, (String, u64)> {
    // Several chunks keep a result from overwriting its source: assume that of all while the budget is made.
    let mut network = network.clone();
    for (_, op) in &mut network.ops {
        if let Op::Conv(conv) = op {
            conv.window = Some(Window { tensor: conv.ring, blocks: 1, chunks: usize::MAX });
        }
    }
    let live = live_bytes(&network, element_bytes);
    // Bytes of a number of blocks, of all blocks, and their number.
    let size = |op: &Op| -> Option<(u64, u64, u64)> {
        let Op::Conv(conv) = op else { return None };
        let taps = (conv.conv.weight.len() / conv.conv.outputs) as u64;
        let blocks = conv.conv.outputs.div_ceil(CHANNEL_BLOCK) as u64;
        let layout = weight_layout(precision, conv.four_bits);
        let block = layout.bytes(CHANNEL_BLOCK as u64, taps);
        let all = layout.bytes(conv.conv.outputs as u64, taps);
        Some((block, all.next_multiple_of(ALIGN), blocks))
    };
    let least = |op: &Op| size(op).map_or(0, |(block, all, _)| block.next_multiple_of(ALIGN).min(all));
    let budget = network.ops.iter().zip(&live).map(|((_, op), live)| live + least(op)).max().unwrap_or(0);
    if let Some((name, op)) = network.ops.iter().find(|(_, op)| least(op) > limit) {
        return Err((name.clone(), least(op)));
    }

    for (index, live) in live.iter().enumerate() {
        let Some((block, all, blocks)) = size(&network.ops[index].1) else { continue };
        let room = (budget - live).min(limit);
        // The most blocks of which `count` chunks fit.
        let most = |count: u64| (1..=blocks).take_while(|n| count * (n * block).next_multiple_of(ALIGN) <= room).last();
        let (chunk, bytes) = if all <= room {
            (blocks, all)
        } else {
            let (chunk, count) = most(2).map_or_else(|| (most(1).unwrap_or(1), 1), |chunk| (chunk, 2));
            (chunk, count * (chunk * block).next_multiple_of(ALIGN))
        };
        let tensor = network.tensors.len();
        let (name, op) = &mut network.ops[index];
        // Sixteen bytes a pixel: no dimension of the format's tensors is too small for a window.
        let shape = Shape::new(1, bytes.div_ceil(ALIGN) as usize, ALIGN as usize);
        network.tensors.push(Tensor { name: format!("{name} (window)"), shape, role: Role::Window });
        if let Op::Conv(conv) = op {
            conv.window = Some(Window { tensor, blocks: chunk as usize, chunks: blocks.div_ceil(chunk) as usize });
        }
    }
    Ok(network)
}
