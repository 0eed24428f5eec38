//! The support vector machine that judges digits, as `models/digits/evaluate.py` trained and wrote it.

use safetensors::SafeTensors;

/// scikit-learn's one-against-one machine with an RBF kernel.
#[derive(Debug)]
pub struct Classifier {
    support: Vec<Vec<f64>>,
    dual: Vec<Vec<f64>>,
    intercept: Vec<f64>,
    /// First support vector of each class, and the end.
    starts: Vec<usize>,
    gamma: f64,
}

impl Classifier {
    /// The shipped one.
    ///
    /// # Panics
    /// If the file is not in the repository.
    pub fn digits() -> Self {
        let path = crate::root().join("models").join("digits").join("classifier.safetensors");
        let bytes = std::fs::read(path).expect("the repository holds the classifier");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let floats = |name: &str| -> Vec<f64> {
            let data = tensors.tensor(name).expect("present").data().to_vec();
            data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        };
        let counts = tensors.tensor("count").expect("present").data().to_vec();
        let mut starts = vec![0];
        for &count in counts.as_chunks().0 {
            starts.push(starts[starts.len() - 1] + i64::from_le_bytes(count) as usize);
        }
        let total = starts[starts.len() - 1];
        Self {
            support: floats("support").chunks_exact(64).map(<[f64]>::to_vec).collect(),
            dual: floats("dual").chunks_exact(total).map(<[f64]>::to_vec).collect(),
            intercept: floats("intercept"),
            starts,
            gamma: floats("gamma")[0],
        }
    }

    /// The digit that 64 bytes show.
    pub fn classify(&self, picture: &[u8]) -> usize {
        let x: Vec<f64> = picture.iter().map(|&b| f64::from(b) / 255.0 * 16.0).collect();
        let kernel: Vec<f64> = self
            .support
            .iter()
            .map(|v| (-self.gamma * v.iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()).exp())
            .collect();
        let classes = self.starts.len() - 1;
        let mut votes = vec![0; classes];
        let mut pair = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let part = |class: usize, row: usize| -> f64 {
                    (self.starts[class]..self.starts[class + 1]).map(|sv| self.dual[row][sv] * kernel[sv]).sum()
                };
                let decision = part(i, j - 1) + part(j, i) + self.intercept[pair];
                votes[if decision > 0.0 { i } else { j }] += 1;
                pair += 1;
            }
        }
        (0..classes).rev().max_by_key(|&class| votes[class]).unwrap_or(0)
    }
}
