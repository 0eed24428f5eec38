//! Lists of steps.

use super::*;

#[test]
fn schedules() {
    bounds!(I8, Schedule, |d, v| d.schedule.steps = v, [1, 3], [0, 10_001]);
    bounds!(I8, Offset, |d, v| d.schedule.steps = v, [], [10_000]);
    bounds!(I8, Offset, |d, v| d.schedule.levels = v, [0, PARAMETERS], [8, 16, PARAMETERS + 8, 0xFFFF_FFF0]);
    bounds!(I8, Schedule, |d, v| d.schedule.bias_bytes = v, [16, 32], [20]);
    bounds!(I8, Offset, |d, v| d.schedule.bias_bytes = v, [], [1 << 20]);
    // Where there is nothing to hold, its place is not looked at.
    let nothing = |change: fn(&mut Draft)| {
        let mut chain = chain::Chain::new(I8, [1, 1, 2], 1);
        chain.push([1, 1, 2], convolution(I8));
        accepted(chain.draft, change);
    };
    nothing(|d| d.schedule.embeddings = 1);
    nothing(|d| (d.schedule.bias_bytes, d.schedule.biases) = (0, 1));
    for step in 0..STEPS {
        bounds!(I8, Schedule, |d, v| d.fixed[step].x0_shift = v, [0, 62], [63]);
        bounds!(I8, Schedule, |d, v| d.fixed[step].next_shift = v, [0, 62], [63]);
        bounds!(I8, Schedule, |d, v| d.fixed[step].clip = v, [0, i32::MAX], [-1]);
        for k in 0..2 {
            bounds!(I8, Schedule, |d, v| d.fixed[step].x0[k] = v, [1 << 29, -(1 << 29)], [(1 << 29) + 1, i32::MIN]);
            bounds!(F32, Schedule, |d, v| d.float[step].x0[k] = v, [f32::MAX], [f32::NAN, f32::INFINITY]);
            bounds!(F32, Schedule, |d, v| d.float[step].history[k] = v, [0.0], [f32::NAN]);
        }
        for k in 0..4 {
            bounds!(I8, Schedule, |d, v| d.fixed[step].next[k] = v, [1 << 29, -(1 << 29)], [(1 << 29) + 1, i32::MIN]);
            bounds!(F32, Schedule, |d, v| d.float[step].next[k] = v, [f32::MIN], [f32::NAN, f32::NEG_INFINITY]);
        }
        bounds!(F32, Schedule, |d, v| d.float[step].clip = v, [0.0, f32::INFINITY], [f32::NAN, -1.0, -0.0]);
        bounds!(F32, Schedule, |d, v| d.float[step].reserved[3] = v, [0], [1]);
        bounds!(F32, Schedule, |d, v| d.float[step].reserved_middle[3] = v, [0], [1]);
        // The first step cannot look back, the second by one.
        for k in 0..2 {
            let fixed = |d: &mut Draft| d.fixed[step].history[k] = 1 << 29;
            let float = |d: &mut Draft| d.float[step].history[k] = 1.0;
            if step > k {
                accepted(I8, fixed);
                accepted(F32, float);
                refused(I8, Field::Schedule, |d| d.fixed[step].history[k] = (1 << 29) + 1);
                let forgotten = [NEWER, OLDER][k];
                refused(I8, Field::Schedule, |d| {
                    d.keep_before(forgotten);
                    d.fixed[step].history[k] = 1;
                });
                refused(F32, Field::Schedule, |d| {
                    d.keep_before(forgotten);
                    d.float[step].history[k] = 1.0;
                });
            } else {
                refused(I8, Field::Schedule, fixed);
                refused(F32, Field::Schedule, float);
            }
        }
    }
}

/// The quantile lies among the magnitudes of a sample of four elements.
#[test]
fn thresholds() {
    let threshold = Threshold { limit: 1 << 20, ..bytemuck::Zeroable::zeroed() };
    for &precision in ALL {
        bounds!(precision, Offset, |d, v| d.schedule.threshold = v, [], [8, PARAMETERS + 8, 0xFFFF_FFF0]);
        let with = |rank, weight, limit| {
            move |d: &mut Draft| {
                d.threshold = Some(Threshold { rank, weight, limit, ..threshold });
            }
        };
        for (rank, weight) in [(0, 0), (3, 0), (2, 1), (2, (1 << 24) - 1)] {
            accepted(precision, with(rank, weight, i32::MAX));
        }
        for (rank, weight) in [(4, 0), (u32::MAX, 0), (3, 1), (0, 1 << 24), (0, u32::MAX)] {
            refused(precision, Field::Schedule, with(rank, weight, i32::MAX));
        }
        accepted(precision, with(0, 0, 1 << 20));
        refused(precision, Field::Schedule, with(0, 0, (1 << 20) - 1));
        refused(precision, Field::Schedule, with(0, 0, i32::MIN));
        refused(precision, Field::Schedule, |d| d.threshold = Some(Threshold { reserved: [0, 0, 0, 1], ..threshold }));
    }
}

/// A learned variance lies beside the prediction until the sampler has read both, and a number for each step behind the steps.
#[test]
fn variances() {
    let learned = |precision| {
        let mut draft = Draft::new(precision);
        draft.learn_variance();
        draft
    };
    for &precision in ALL {
        for step in 0..STEPS {
            bounds!(
                learned(precision),
                Schedule,
                |d, v| d.variances[step].orders = v,
                [0, 1, 32 << 24],
                [-1, i32::MIN, (32 << 24) + 1, i32::MAX]
            );
        }
        let Header { variance, .. } = learned(precision).header;
        bounds!(
            learned(precision),
            Header,
            |d, v| d.header.variance = v,
            [variance],
            [PREDICTION, UNCONDITIONAL, NEWER, OLDER, NORM, variance + 1, NONE]
        );
        refused(learned(precision), Field::Header, |d| {
            let Tensor { first, .. } = *d.tensor(variance);
            d.header.condition = d.add([2, 2, 1], elements(precision)[1], [0, first + 1]);
            d.header.variance = d.header.condition;
        });
        refused(learned(precision), Field::Lifetime, |d| d.tensor(variance).last -= 1);
        // Nobody reads it then.
        refused(learned(I8), Field::Operand, |d| d.header.variance = 0);
        refused(learned(precision), Field::Header, |d| d.resize(variance, [2, 1, 2], elements(precision)[1]));
        let end = learned(precision).file().bytes().len() as u32;
        let rows = (STEPS * STEP_BYTES) as u32;
        refused(learned(precision), Field::Offset, |d| d.schedule.rows = end - rows);
    }
    refused(learned(I8), Field::Header, |d| d.resize(d.header.variance, [2, 2, 1], Element::I16));
}

/// What a list has for each step ends with the file.
#[test]
fn lists_end_in_the_file() {
    for &precision in ALL {
        let end = Draft::new(precision).file().bytes().len() as u32;
        let steps = STEPS as u32;
        refused(precision, Field::Offset, |d| d.schedule.rows = end - steps * STEP_BYTES as u32 + 16);
        // Four numbers of 16 or 32 bits a step, and 16 bytes of biases.
        let embeddings = |d: &mut Draft, bytes: u32| d.schedule.embeddings = end - bytes;
        let (inside, outside) = if precision == I8 { (32, 16) } else { (48, 32) };
        accepted(precision, |d| embeddings(d, inside));
        refused(precision, Field::Offset, |d| embeddings(d, outside));
        bounds!(precision, Offset, |d, v| d.schedule.biases = end - v, [48], [16, 32]);
        let levels = steps * size_of::<Level>() as u32;
        bounds!(
            precision,
            Offset,
            |d, v| d.schedule.levels = end - v,
            [levels.next_multiple_of(16)],
            [levels / 16 * 16]
        );
    }
}
