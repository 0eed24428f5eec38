use super::*;

/// Factors of the clean samples of two earlier steps, and these samples.
const LOOK_BACK: [f64; 2] = [-0.75, 0.125];
const EARLIER: [f64; 2] = [0.9, -1.0];

/// `x0 = clamp(a·x + b·m)`, `x' = p·x0 + q·x + r·m + s·z + u·h₁ + v·h₂` in double precision.
fn exact([a, b]: [f64; 2], [p, q, r, s]: [f64; 4], [x, m, z]: [f64; 3]) -> f64 {
    let x0 = (a * x + b * m).clamp(-1.0, 1.0);
    let history = if cfg!(feature = "history") { LOOK_BACK[0] * EARLIER[0] + LOOK_BACK[1] * EARLIER[1] } else { 0.0 };
    p * x0 + q * x + r * m + s * z + history
}

/// The next sample of a step.
fn next<S: Copy, T: Step<S>>(step: &T, [x, m, z]: [S; 3], history: [S; 2]) -> S {
    step.next(Terms { x0: step.clean(x, m), x, m, z }, history)
}

/// DDIM with η = 1 from cumulative α 0.2 to 0.5, for a model that predicts noise, and the extremes of samples.
fn coefficients() -> ([f64; 2], [f64; 4]) {
    let (now, next) = (0.2f64, 0.5f64);
    let sigma = ((1.0 - next) / (1.0 - now) * (1.0 - now / next)).sqrt();
    let x0 = [1.0 / now.sqrt(), -((1.0 - now) / now).sqrt()];
    // The direction is the predicted noise, re-derived from the clamped x0: ε = (x − √ᾱ·x0)/√(1 − ᾱ).
    let direction = (1.0 - next - sigma * sigma).sqrt() / (1.0 - now).sqrt();
    (x0, [next.sqrt() - direction * now.sqrt(), direction, 0.0, sigma])
}

const VALUES: [f64; 7] = [-5.5, -1.0, -0.3, 0.0, 0.7, 1.0, 5.5];

#[test]
fn steps_in_fixed_point_are_the_closed_form() {
    const ONE: f64 = (1 << SAMPLE_BITS) as f64;
    let (x0, factors) = coefficients();
    let fixed = |value: f64| (value * f64::from(1 << 24)).round() as i32;
    let step = FixedStep {
        clip: 1 << SAMPLE_BITS,
        x0: x0.map(fixed),
        x0_shift: 24,
        next: factors.map(fixed),
        next_shift: 24,
        history: LOOK_BACK.map(fixed),
        timestep: 0,
    };
    assert!(step.has_noise());
    for x in VALUES {
        for m in VALUES {
            for z in VALUES {
                let bits = |value: f64| (value * ONE).round() as i32;
                let found = f64::from(next(&step, [x, m, z].map(bits), EARLIER.map(bits))) / ONE;
                let expected = exact(x0, factors, [x, m, z]);
                // Half a unit for each rounding of operands, coefficients and results.
                assert!((found - expected).abs() < 8.0 / ONE, "{x} {m} {z}: {found}, not {expected}");
            }
        }
    }
}

#[cfg(any(feature = "f16", feature = "f32"))]
#[test]
fn steps_in_single_precision_are_the_closed_form() {
    let (x0, factors) = coefficients();
    let single = |value: f64| value as f32;
    let step = FloatStep {
        clip: 1.0,
        x0: x0.map(single),
        next: factors.map(single),
        history: LOOK_BACK.map(single),
        ..bytemuck::Zeroable::zeroed()
    };
    for x in VALUES {
        for m in VALUES {
            for z in VALUES {
                let found = f64::from(next(&step, [x, m, z].map(single), EARLIER.map(single)));
                let expected = exact(x0, factors, [x, m, z]);
                assert!((found - expected).abs() < 1e-5, "{x} {m} {z}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn bytes_are_rounded_and_saturated() {
    const ONE: i32 = 1 << SAMPLE_BITS;
    assert_eq!([i32::MIN, -ONE, 0, ONE, i32::MAX].map(Sample::to_byte), [0, 0, 128, 255, 255]);
    for byte in 0..=255 {
        let value = f64::from(byte) / 127.5 - 1.0;
        let bits = (value * f64::from(ONE)).round() as i32;
        assert_eq!(i32::from(bits.to_byte()), byte);
        assert_eq!(i32::from_byte(byte as u8), bits);
    }
}

#[test]
fn noise_is_added_in_closed_form() {
    const ONE: f64 = (1 << SAMPLE_BITS) as f64;
    let bits = |value: f64, bits: u32| (value * 2f64.powi(bits as i32)).round() as i32;
    for (signal, noise) in [(0.0, 1.0), (0.6, 0.8), (1.0, 0.0), (2.0, -7.9)] {
        let level = Level { signal: bits(signal, LEVEL_BITS), noise: bits(noise, LEVEL_BITS) };
        for x0 in VALUES {
            for z in VALUES {
                let found = f64::from(bits(x0, SAMPLE_BITS).noised(bits(z, SAMPLE_BITS), level)) / ONE;
                let expected = signal * x0 + noise * z;
                assert!((found - expected).abs() < 6.0 / ONE, "{signal} {noise} {x0} {z}: {found}, not {expected}");
                #[cfg(any(feature = "f16", feature = "f32"))]
                assert!((f64::from((x0 as f32).noised(z as f32, level)) - expected).abs() < 1e-5);
            }
        }
    }
    assert_eq!(i32::MAX.noised(i32::MAX, Level { signal: i32::MAX, noise: i32::MAX }), i32::MAX);
    assert_eq!(i32::MIN.noised(i32::MIN, Level { signal: i32::MIN, noise: 0 }), i32::MAX);
    assert_eq!(100.started(0), 100);
    assert_eq!(100.started(3 << (START_BITS - 1)), 150);
    assert_eq!(i32::MIN.started(i32::MAX), i32::MIN);
}

/// The threshold in double precision, and the sample clamped to it and divided by it.
#[test]
fn clean_samples_are_bounded_by_the_closed_form() {
    const ONE: f64 = (1 << SAMPLE_BITS) as f64;
    let bits = |value: f64| (value * ONE) as u32;
    for limit in [1.0, 1.5, 40.0, 2047.0, f64::INFINITY] {
        for [low, high] in [[0.0, 0.5], [0.9, 1.3], [1.3, 1.3], [7.5, 9.0], [1500.0, 2047.9]] {
            for weight in [0.0, 0.25, 0.985] {
                let threshold = Threshold {
                    weight: (weight * f64::from(1 << WEIGHT_BITS)) as u32,
                    limit: (limit * ONE) as i32,
                    ..bytemuck::Zeroable::zeroed()
                };
                let s = (low + weight * (high - low)).clamp(1.0, limit);
                let bound = i32::bound(threshold, [low, high].map(bits));
                #[cfg(any(feature = "f16", feature = "f32"))]
                let single = f32::bound(threshold, [low, high].map(|value| (value as f32).to_bits()));
                for x in [0.0, 0.3, -1.0, 1.2, -8.0, 2000.0, -2047.9] {
                    let expected = f64::clamp(x, -s, s) / s;
                    let found = f64::from(((x * ONE) as i32).bounded(bound)) / ONE;
                    assert!((found - expected).abs() <= 2.0 / ONE, "{x} in {s}: {found}, not {expected}");
                    #[cfg(any(feature = "f16", feature = "f32"))]
                    assert!((f64::from((x as f32).bounded(single)) - expected).abs() < 1e-6, "{x} in {s}");
                }
            }
        }
    }
    // Whatever the magnitudes are.
    for neighbours in [[0; 2], [u32::MAX; 2], [1 << 31; 2], [5, 4]] {
        let threshold = Threshold { weight: (1 << WEIGHT_BITS) - 1, limit: i32::MAX, ..bytemuck::Zeroable::zeroed() };
        assert!(i32::MIN.bounded(i32::bound(threshold, neighbours)) >= -(1 << SAMPLE_BITS) - 1);
    }
}

/// `z·2^(orders·(v − 1))` in double precision.
#[test]
fn variances_multiply_noise_by_the_closed_form() {
    const ONE: f64 = (1 << SAMPLE_BITS) as f64;
    for orders in [0, 1 << 21, 28_521_267, 33 << 23, 32 << ORDER_BITS] {
        let variance = Variance { orders };
        let orders = f64::from(orders) / f64::from(1 << ORDER_BITS);
        for v in [-1 << 20, -(3 << 19), -123_456, 0, (1 << 20) - 1, 1 << 20, 1_500_000, i32::MIN, i32::MAX] {
            for z in [0, 1_049, -(1 << 20), 2_831_156, i32::MAX] {
                let [v_real, z_real] = [v, z].map(|fixed| f64::from(fixed) / ONE);
                let expected = z_real * (orders * (v_real - 1.0)).clamp(-32.0, 16.0).exp2();
                let found = f64::from(z.varied(v, variance)) / ONE;
                let limited = expected.clamp(-2048.0, 2048.0 - 1.0 / ONE);
                // The exponent has 24 fractional bits.
                let allowed = 6e-8 * expected.abs() + 1.0 / ONE;
                assert!((found - limited).abs() <= allowed, "{orders} {v} {z}: {found}, not {limited}");
                #[cfg(any(feature = "f16", feature = "f32"))]
                {
                    let found = f64::from((z_real as f32).varied(v_real as f32, variance));
                    assert!((found - expected).abs() <= 4e-6 * expected.abs() + 1e-9, "{orders} {v} {z}: {found}");
                }
            }
        }
    }
    // Whatever they are.
    for orders in [i32::MIN, -1, i32::MAX] {
        for v in [i32::MIN, 0, i32::MAX] {
            assert_eq!(0.varied(v, Variance { orders }), 0);
            assert!(i32::MIN.varied(v, Variance { orders }) <= 0);
        }
    }
}

#[test]
fn guidance_mixes_and_saturates() {
    let guide = <i32 as Sample>::guide;
    assert_eq!(guide(100, 300, Guidance::NONE), 300);
    assert_eq!(guide(100, 300, Guidance::from_ratio(0, 1)), 100);
    assert_eq!(guide(100, 300, Guidance::from_ratio(5, 2)), 600);
    assert_eq!(guide(i32::MIN, i32::MAX, Guidance::from_ratio(7, 1)), i32::MAX);
    assert_eq!(guide(i32::MAX, i32::MIN, Guidance::from_ratio(7, 1)), i32::MIN);
}
