use super::{Check, File, check, ensure, is_zero, require};
use crate::fixed::SAMPLE_BITS;
use crate::format::{
    ALIGN, FixedStep, FloatStep, Level, NONE, ORDER_BITS, STEP_BYTES, Threshold, Variance, WEIGHT_BITS,
};

pub(super) const fn validate(file: File<'_>) -> Check {
    let header = file.header;
    let mut i = 0;
    while i < header.schedules {
        let schedule = require!(header.schedule(file.bytes, i), Schedule, i);
        let steps = schedule.steps as u64;
        ensure!(steps >= 1 && steps <= 10_000, Schedule, i);
        let has_variances = header.variance != 0;
        let step_bytes = STEP_BYTES + if has_variances { size_of::<Variance>() } else { 0 };
        ensure!(file.holds(schedule.rows, steps * step_bytes as u64), Offset, i);
        ensure!(schedule.levels == 0 || file.holds(schedule.levels, steps * size_of::<Level>() as u64), Offset, i);
        if schedule.threshold != 0 {
            ensure!(file.holds(schedule.threshold, size_of::<Threshold>() as u64), Offset, i);
            check!(validate_threshold(file, i, &Threshold::read(file.bytes, schedule.threshold as usize)));
        }
        let row = header.conditioning as u64 * file.conditioning().bytes() as u64;
        ensure!(row == 0 || file.holds(schedule.embeddings, steps * row), Offset, i);
        ensure!(schedule.bias_bytes.is_multiple_of(ALIGN as u32), Schedule, i);
        let biases = steps * schedule.bias_bytes as u64;
        ensure!(biases == 0 || file.holds(schedule.biases, biases), Offset, i);
        let mut step = 0;
        while step < schedule.steps {
            let at = schedule.rows as usize + step as usize * STEP_BYTES;
            if has_variances {
                let at = schedule.variances() as usize + step as usize * size_of::<Variance>();
                let orders = Variance::read(file.bytes, at).orders;
                ensure!(orders >= 0 && orders <= 32 << ORDER_BITS, Schedule, i);
            }
            // The first step has no history to look at, the second none of two steps ago.
            if file.is_i8() {
                let record = FixedStep::read(file.bytes, at);
                check!(validate_fixed(file, i, &record));
                ensure!(step > 0 || record.history[0] == 0, Schedule, i);
                ensure!(step > 1 || record.history[1] == 0, Schedule, i);
            } else {
                let record = FloatStep::read(file.bytes, at);
                check!(validate_float(file, i, &record));
                ensure!(step > 0 || record.history[0] == 0.0, Schedule, i);
                ensure!(step > 1 || record.history[1] == 0.0, Schedule, i);
            }
            step += 1;
        }
        i += 1;
    }
    Ok(())
}

const fn validate_threshold(file: File<'_>, index: u16, threshold: &Threshold) -> Check {
    let sample = require!(file.tensor(file.header.sample), Schedule, index);
    ensure!(is_zero(threshold.reserved), Schedule, index);
    ensure!(threshold.weight < 1 << WEIGHT_BITS && threshold.limit >= 1 << SAMPLE_BITS, Schedule, index);
    // Two magnitudes are read if the quantile lies between them.
    let last = threshold.rank as u64 + (threshold.weight > 0) as u64;
    ensure!(last < sample.len() as u64, Schedule, index);
    Ok(())
}

const fn validate_fixed(file: File<'_>, index: u16, step: &FixedStep) -> Check {
    ensure!(step.x0_shift <= 62 && step.next_shift <= 62 && step.clip >= 0, Schedule, index);
    // Sums of six products of such a mantissa with a 32-bit value fit 64 bits.
    let [a, b] = step.x0;
    let [p, q, r, s] = step.next;
    let [u, v] = step.history;
    let mantissas = [a, b, p, q, r, s, u, v];
    let mut i = 0;
    while i < mantissas.len() {
        ensure!(mantissas[i].unsigned_abs() <= 1 << 29, Schedule, index);
        i += 1;
    }
    ensure!(u == 0 || file.header.history[0] != NONE, Schedule, index);
    ensure!(v == 0 || file.header.history[1] != NONE, Schedule, index);
    Ok(())
}

const fn validate_float(file: File<'_>, index: u16, step: &FloatStep) -> Check {
    ensure!(is_zero(step.reserved) && is_zero(step.reserved_middle), Schedule, index);
    ensure!(!step.clip.is_nan() && !step.clip.is_sign_negative(), Schedule, index);
    let [a, b] = step.x0;
    let [p, q, r, s] = step.next;
    let [u, v] = step.history;
    let coefficients = [a, b, p, q, r, s, u, v];
    let mut i = 0;
    while i < coefficients.len() {
        ensure!(coefficients[i].is_finite(), Schedule, index);
        i += 1;
    }
    ensure!(u == 0.0 || file.header.history[0] != NONE, Schedule, index);
    ensure!(v == 0.0 || file.header.history[1] != NONE, Schedule, index);
    Ok(())
}
