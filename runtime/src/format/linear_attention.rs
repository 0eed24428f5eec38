//! The record of a linear attention.

use super::record::record;

record! {
    /// Linear attention over the pixels of a map and learned keys and values besides: for each head `C = softmax(K)ᵀ·V` over the
    /// keys, one channel of the keys after the other, then `softmax(q)·C·gain` over the channels of each query, which it replaces.
    pub struct LinearAttention {
        /// [`OpKind::LinearAttention`](super::OpKind::LinearAttention)
        pub kind: u8,
        /// zeros
        pub reserved: [u8; 3],
        /// tensor: queries; (pixels, channels)
        pub query: u16,
        /// tensor: keys then values; (pixels, 2·channels)
        pub key_value: u16,
        /// tensor: result, at the place of the queries
        pub output: u16,
        /// tensor: (channels, channels of a head) of contexts, then weights of as many channels; `i16` or `f32`
        pub scratch: u16,
        /// number of heads, divides the channels
        pub heads: u16,
        /// number of learned keys
        pub memory: u16,
        /// offset of learned keys and values, laid out as those of as many pixels; 0 if there are none
        pub memory_at: u32,
        /// multiplier from a difference of keys to 8 fractional bits of a binary exponent
        pub key_multiplier: i32,
        /// the shift that goes with it
        pub key_shift: i32,
        /// multiplier from a difference of queries likewise
        pub query_multiplier: i32,
        /// the shift that goes with it
        pub query_shift: i32,
        /// multiplier from a weighted mean of contexts, which have 6 fractional bits more than values, to the output
        pub value_multiplier: i32,
        /// the shift that goes with it
        pub value_shift: i32,
        /// fractional bits of the unnormalized weights of keys, 1 to 15
        pub key_bits: u32,
        /// fractional bits of the unnormalized weights of queries, 1 to 14
        pub query_bits: u32,
        /// factor of the result in f16 and f32
        pub gain: f32,
        /// zeros
        pub reserved_end: [u8; 64],
    }
}
