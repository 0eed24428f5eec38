//! Lists of steps.

use super::*;

#[test]
fn schedules() {
    bounds!(I8, Schedule, |d, v| d.schedule.reserved[3] = v, [0], [1]);
    bounds!(I8, Schedule, |d, v| d.schedule.steps = v, [1, 3], [0, 10_001]);
    bounds!(I8, Offset, |d, v| d.schedule.steps = v, [], [10_000]);
    bounds!(I8, Offset, |d, v| d.schedule.levels = v, [0, PARAMETERS], [8, 16, PARAMETERS + 8, 0xFFFF_FFF0]);
    bounds!(I8, Schedule, |d, v| d.schedule.bias_bytes = v, [16, 32], [20]);
    bounds!(I8, Offset, |d, v| d.schedule.bias_bytes = v, [], [1 << 20]);
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
