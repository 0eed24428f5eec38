//! The record of an attention.

use super::record::record;

record! {
    /// Self-attention over the pixels of a map and learned keys and values besides, one query at a time, the context written over
    /// the query.
    pub struct Attention {
        /// [`OpKind::Attention`](super::OpKind::Attention)
        pub kind: u8,
        /// zeros
        pub reserved: [u8; 3],
        /// tensor: queries; (pixels, channels)
        pub query: u16,
        /// tensor: keys then values; (pixels, 2·channels)
        pub key_value: u16,
        /// tensor: context, at the place of the queries
        pub output: u16,
        /// tensor: one `i32` or `f32` per learned key and pixel
        pub scratch: u16,
        /// number of heads, divides the channels
        pub heads: u16,
        /// number of learned keys
        pub memory: u16,
        /// multiplier from a difference of scores to 8 fractional bits of a binary exponent
        pub score_multiplier: i32,
        /// the shift that goes with it
        pub score_shift: i32,
        /// multiplier from a weighted mean of values to the output
        pub value_multiplier: i32,
        /// the shift that goes with it
        pub value_shift: i32,
        /// fractional bits of the unnormalized weights, 1 to 15
        pub weight_bits: u32,
        /// factor of the scores in f16 and f32
        pub scale: f32,
        /// offset of learned keys and values, laid out as those of as many pixels; 0 if there are none
        pub memory_at: u32,
        /// zeros
        pub reserved_end: [u8; 76],
    }
}
