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
    // The sample, where it is no activation; and a result of another kind that nobody reads.
    let of_sample = |d: &mut Draft| {
        let element = d.tensor(HALF).element();
        d.filter(HALVE).source = SAMPLE;
        d.resize(HALF, [1, 4, 1], element);
        d.resize(DOUBLE, [1, 8, 1], element);
        let ring = d.conv(3).scratch;
        let element = d.tensor(ring).element();
        d.resize(ring, [1, 8, 1], element);
    };
    refused(rows(I8), Field::Operand, of_sample);
    accepted(rows(F32), of_sample);
    let unread = |d: &mut Draft, element: Element| {
        d.resize(DOUBLE, [1, 8, 4], element);
        d.tensor(INPUT).last = 3;
        d.conv(3).sources[0] = INPUT;
    };
    bounds!(rows(I8), Operand, |d, v| unread(d, v), [Element::I8, Element::I16], [Element::I32, Element::F16]);
    ALL.iter().for_each(|&precision| {
        let shorter = |d: &mut Draft, [columns, half]: [u16; 2]| {
            let element = d.tensor(HALF).element();
            for (id, columns) in [(INPUT, columns), (HALF, half), (DOUBLE, columns)] {
                d.resize(id, [1, columns, 4], element);
            }
            let rings = [0, 3].map(|op| d.conv(op).scratch);
            for (id, channels) in [(SAMPLE, 1), (PREDICTION, 1), (rings[0], 1), (rings[1], 4)] {
                let element = d.tensor(id).element();
                d.resize(id, [1, columns, channels], element);
            }
        };
        // Three columns beyond an end are reflected where a row is halved, two where it is doubled.
        accepted(rows(precision), |d| shorter(d, [6, 3]));
        refused(rows(precision), Field::Operand, |d| shorter(d, [4, 2]));
        let unread = |d: &mut Draft, columns: u16| {
            shorter(d, [columns, columns / 2]);
            let element = d.tensor(DOUBLE).element();
            d.resize(DOUBLE, [1, 2 * columns, 4], element);
            d.tensor(INPUT).last = 3;
            (d.filter(DOUBLE_OP).source, d.conv(3).sources[0]) = (INPUT, INPUT);
        };
        bounds!(rows(precision), Operand, |d, v| unread(d, v), [4, 5], [3]);
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
