//! Where one tensor lies in a file, and its elements.

use safetensors::Dtype;

/// A tensor's place.
#[derive(Debug)]
pub(super) struct Entry {
    /// Number of the file.
    pub(super) file: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// First byte of the first element.
    pub(super) start: usize,
    /// Elements from one index to the next in each dimension; `None` if they lie in row-major order.
    pub(super) strides: Option<Vec<usize>>,
}

impl Entry {
    /// The elements in row-major order, from bytes that begin with the first.
    pub(super) fn values<const N: usize>(&self, data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = data.as_chunks::<N>();
        let len = self.shape.iter().product();
        let Some(strides) = &self.strides else {
            return elements[..len].iter().map(|&bytes| convert(bytes)).collect();
        };
        let place = |mut at: usize| {
            let dimensions = self.shape.iter().zip(strides).rev();
            dimensions.fold(0, |place, (&n, &stride)| {
                let index = at % n;
                at /= n;
                place + index * stride
            })
        };
        (0..len).map(|at| convert(elements[place(at)])).collect()
    }
}
