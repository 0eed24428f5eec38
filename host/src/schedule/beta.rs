//! Quantiles of the beta distribution, where noise levels follow it.

/// Both parameters of the distribution (Lee et al., 2024, arXiv:2407.12173).
const SHAPE: f64 = 0.6;

/// Where the cumulative distribution is `p`, from 0 to 1.
pub(super) fn quantile(p: f64) -> f64 {
    // The distribution is symmetric, and the series below converges fast in its lower half.
    if p > 0.5 {
        return 1.0 - quantile(1.0 - p);
    }
    // Until no number lies between: `low` is the last one below.
    let (mut low, mut high) = (0.0, 0.5);
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return low;
        }
        if cumulative(middle) < p { low = middle } else { high = middle }
    }
}

/// The regularized incomplete beta function at `x` ≤ ½: `x^a/(a·B(a, a))·₂F₁(a, 1 − a; a + 1; x)`.
fn cumulative(x: f64) -> f64 {
    let complete = libm::tgamma(SHAPE).powi(2) / libm::tgamma(2.0 * SHAPE);
    let (mut term, mut sum) = (1.0, 1.0);
    // Terms fall at least by half each.
    for k in 0..60 {
        let k = f64::from(k);
        term *= (SHAPE + k) * (1.0 - SHAPE + k) / ((SHAPE + 1.0 + k) * (k + 1.0)) * x;
        sum += term;
    }
    libm::pow(x, SHAPE) / (SHAPE * complete) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.beta.ppf(p, 0.6, 0.6)` of SciPy.
    #[test]
    fn quantiles_are_those_of_scipy() {
        let expected = [
            (0.0, 0.0),
            (0.001, 1.855873851745199e-05),
            (0.1, 0.03958440558878085),
            (0.25, 0.17568037865269498),
            (0.3333333333333333, 0.2754132907776234),
            (0.5, 0.5000000000000001),
            (0.7, 0.7659829961247643),
            (0.9, 0.9604155944112192),
            (0.999, 0.9999814412614826),
            (1.0, 1.0),
        ];
        for (p, expected) in expected {
            assert!((quantile(p) - expected).abs() <= 1e-13, "{p}: {}, not {expected}", quantile(p));
        }
    }
}
