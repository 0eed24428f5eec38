//! Resampling along rows.

use super::*;
use crate::draft::rows::{DOUBLE, DOUBLE_OP, HALF, HALVE, INPUT, PREDICTION, SAMPLE};
use crate::format::Resampling;

fn rows(precision: Precision) -> Draft {
    Draft::rows(precision)
}

#[test]
fn filters() {
    let ways = Resampling::ALL.len() as u8;
    bounds!(rows(I8), Op, |d, v| d.filter(HALVE).resampling = v, [0], [ways, 255]);
    bounds!(rows(I8), Op, |d, v| d.filter(HALVE).reserved[1] = v, [0], [1]);
    bounds!(rows(I8), Op, |d, v| d.filter(HALVE).reserved_end[95] = v, [0], [1]);
    bounds!(rows(I8), Op, |d, v| d.filter(HALVE).zero = v, [-128, 127], [-129, 128]);
    accepted(rows(F32), |d| d.filter(HALVE).zero = 1 << 20);
    // A wide tensor is symmetric.
    let wide = |d: &mut Draft, zero: i32| {
        d.resize(INPUT, [1, 8, 4], Element::I16);
        d.filter(HALVE).zero = zero;
    };
    bounds!(rows(I8), Op, |d, v| wide(d, v), [0], [-1, 1]);
}

#[test]
fn what_filters_read_and_write() {
    bounds!(rows(I8), Operand, |d, v| d.filter(HALVE).source = v, [INPUT], [NONE, NONE - 1, SAMPLE]);
    bounds!(rows(F32), Operand, |d, v| d.filter(HALVE).source = v, [INPUT], [NONE, SAMPLE]);
    bounds!(rows(I8), Lifetime, |d, v| d.filter(HALVE).output = v, [HALF], [NONE, PREDICTION]);
    bounds!(rows(I8), Operand, |d, v| d.filter(DOUBLE_OP).resampling = v, [1], [0]);
    ALL.iter().for_each(|&precision| {
        let shorter = |d: &mut Draft, [columns, half]: [u16; 2]| {
            let element = d.tensor(HALF).element();
            for (id, columns) in [(INPUT, columns), (HALF, half), (DOUBLE, columns)] {
                d.resize(id, [1, columns, 4], element);
            }
            for id in [SAMPLE, PREDICTION] {
                let element = d.tensor(id).element();
                d.resize(id, [1, columns, 1], element);
            }
        };
        // Three columns beyond an end are reflected where a row is halved, two where it is doubled.
        refused(rows(precision), Field::Operand, |d| shorter(d, [4, 2]));
        refused(rows(precision), Field::Operand, |d| shorter(d, [3, 1]));
        refused(rows(precision), Field::Operand, |d| shorter(d, [8, 3]));
        refused(rows(precision), Field::Operand, |d| {
            let element = d.tensor(HALF).element();
            d.resize(HALF, [1, 4, 3], element);
        });
        refused(rows(precision), Field::Operand, |d| {
            let element = d.tensor(HALF).element();
            d.resize(HALF, [2, 4, 4], element);
        });
    });
}
