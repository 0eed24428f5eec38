//! Values on their way into the ring, one pass for all that happens to them.

use crate::fixed::{Entry, IntoRing, affine_narrow, silu};

/// Brings pixels of some channels into a ring, where they are `advance` elements apart: the maps of their channels, the SiLU,
/// requantization. Raw values have no maps. There are as many pixels as values and targets are there for. False where a kernel has
/// no loop for them, or the sizes do not go together; nothing is written then.
fn gather<S: Copy + Into<i32>, R>(
    map: IntoRing,
    values: &[S],
    maps: &[[i32; 2]],
    targets: &mut [R],
    [channels, advance]: [usize; 2],
    nearest: impl Fn(i32) -> R,
) -> bool {
    if !map.takes(maps.len(), [channels, advance]) {
        return false;
    }
    let left = map.left;
    let fine = u32::from(matches!(map.entry, Entry::FineSilu));
    let most = 1 << (IntoRing::BITS - 1);
    let mapped = |value: S, [a, b]: [i32; 2]| affine_narrow(value.into() << left, a, b);
    for (values, targets) in values.chunks_exact(channels).zip(targets.chunks_mut(advance)) {
        let Some(targets) = targets.get_mut(..channels) else { break };
        let pairs = values.iter().zip(targets);
        match map.entry {
            Entry::Silu | Entry::FineSilu => pairs.zip(maps).for_each(|((&value, target), &pair)| {
                *target = nearest(map.to_ring(silu(mapped(value, pair)) << fine));
            }),
            Entry::Affine => pairs.zip(maps).for_each(|((&value, target), &pair)| {
                let value = mapped(value, pair).clamp(-most, most - 1) << IntoRing::AFFINE_LEFT;
                *target = nearest(map.to_ring(value));
            }),
            Entry::Raw => pairs.for_each(|(&value, target)| {
                *target = nearest(map.to_ring((value.into() - map.zero) << left));
            }),
        }
    }
    true
}

/// Kernels of pairs of types: source, ring.
macro_rules! gather {
    ($($kernel:ident: $source:ty, $ring:ty, $nearest:ident;)*) => {
        $(
            #[inline(never)]
            pub(crate) fn $kernel(
                map: IntoRing,
                values: &[$source],
                maps: &[[i32; 2]],
                targets: &mut [$ring],
                sizes: [usize; 2],
            ) -> bool {
                gather(map, values, maps, targets, sizes, crate::fixed::$nearest)
            }
        )*
    };
}
gather! {
    gather_i8_i8: i8, i8, saturate_i8;
    gather_i16_i8: i16, i8, saturate_i8;
    gather_i8_i16: i8, i16, saturate_i16;
    gather_i16_i16: i16, i16, saturate_i16;
}
