//! Activation functions.

use super::record::codes;

codes! {
    /// A function of each element of a normalized map, and of the conditioning vector.
    pub enum Activation {
        /// `x·sigmoid(x)` (Hendrycks and Gimpel, 2016, arXiv:1606.08415; also called swish).
        Silu = 0,
        /// `max(x, 0)`.
        Relu = 1,
        /// `x·Φ(x)`, Φ the distribution function of the normal distribution (Hendrycks and Gimpel, 2016); not its
        /// approximation by a hyperbolic tangent.
        Gelu = 2,
        /// `x·tanh(ln(1 + eˣ))` (Misra, 2019, arXiv:1908.08681).
        Mish = 3,
    }
}
