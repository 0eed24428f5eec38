//! A tile of sums in registers, around a loop over the taps.

/// For each block and as many pixels as the caller's `PIXELS`, the sums in `REGISTERS` registers a pixel: `load` and `store` move a
/// register, `read` spreads a group of a pixel's taps over one, and `add` adds the products with a register of weights.
macro_rules! dot {
    ($sums:ident, $window:ident, $weights:ident, $group:literal, $load:expr, $store:expr, $read:expr, $add:expr) => {{
        /// Channels of a register.
        const CHANNELS: usize = LANES / REGISTERS;
        let Some(weights) = $weights.get(..N * LANES * $window.taps()) else { return };
        if !$window.run.is_multiple_of($group) {
            return;
        }
        for (block, sums) in $sums.iter_mut().take(N).enumerate() {
            let (sums, _) = sums.as_chunks_mut::<PIXELS>();
            for (sums, starts) in sums.iter_mut().zip($window.starts.as_chunks::<PIXELS>().0) {
                let mut weights = weights.as_ptr().add(block * LANES * $group);
                let mut registers = [[$load(sums.as_ptr().cast()); REGISTERS]; PIXELS];
                for (registers, sums) in registers.iter_mut().zip(&*sums) {
                    for (register, value) in registers.iter_mut().enumerate() {
                        *value = $load(sums.as_ptr().add(register * CHANNELS).cast());
                    }
                }
                for row in 0..$window.rows {
                    let mut pixels = [$window.values.as_ptr(); PIXELS];
                    for (place, start) in pixels.iter_mut().zip(starts) {
                        *place = place.add(start + row * $window.pitch);
                    }
                    let mut tap = 0;
                    while tap < $window.run {
                        let mut group = [$load(weights.cast()); REGISTERS];
                        for (register, value) in group.iter_mut().enumerate().skip(1) {
                            *value = $load(weights.add(register * CHANNELS * $group).cast());
                        }
                        for (registers, place) in registers.iter_mut().zip(pixels) {
                            let value = $read(place.add(tap));
                            for (register, weights) in registers.iter_mut().zip(group) {
                                *register = $add(*register, value, weights);
                            }
                        }
                        // Wrapping: behind the last group it leaves the weights, where nothing is read.
                        weights = weights.wrapping_add(N * LANES * $group);
                        tap += $group;
                    }
                }
                for (registers, sums) in registers.iter().zip(sums) {
                    for (register, value) in registers.iter().enumerate() {
                        $store(sums.as_mut_ptr().add(register * CHANNELS).cast(), *value);
                    }
                }
            }
        }
    }};
}
pub(super) use dot;
