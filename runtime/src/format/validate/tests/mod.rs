//! Each rule of validation: what is just inside is accepted, what is just outside is refused for its own reason.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::draft::*;
use crate::error::Field;
use crate::format::{
    Affine, Bias, Conv2d, Gather, Level, Op, OpKind, STEP_BYTES, Tensor, Threshold, Tiling, WeightLayout, checksum,
};

fn check(draft: &Draft) -> Result<(), ModelError> {
    let file = draft.file();
    validate(file.bytes(), checksum(file.bytes())).map(|_| ())
}

/// A precision stands for the draft of pictures.
impl From<Precision> for Draft {
    fn from(precision: Precision) -> Self {
        Draft::new(precision)
    }
}

#[track_caller]
fn accepted(draft: impl Into<Draft>, change: impl FnOnce(&mut Draft)) {
    let mut draft = draft.into();
    change(&mut draft);
    assert_eq!(check(&draft), Ok(()), "{:?}", draft.header.precision());
}

#[track_caller]
fn refused(draft: impl Into<Draft>, field: Field, change: impl FnOnce(&mut Draft)) {
    let mut draft = draft.into();
    change(&mut draft);
    let found = check(&draft);
    assert!(
        matches!(found, Err(ModelError::Malformed { field: found, .. }) if found == field),
        "{:?}, {field:?} expected: {found:?}",
        draft.header.precision()
    );
}

/// A value of one field: those that are accepted, and those that are refused.
macro_rules! bounds {
    ($of:expr, $field:ident, |$draft:ident, $value:ident| $set:expr, [$($good:expr),*], [$($bad:expr),*]) => {
        $( accepted($of, |$draft| { let $value = $good; $set; }); )*
        $( refused($of, Field::$field, |$draft| { let $value = $bad; $set; }); )*
    };
}

mod classifiers;
mod convolutions;
mod filters;
mod operations;
mod overlap;
mod pixels;
mod policies;
mod schedules;
mod tensors;

const ALL: &[Precision] = Precision::ALL;
const I8: Precision = Precision::I8;
const F32: Precision = Precision::F32;

#[test]
fn the_drafts_are_valid_and_have_every_kind_of_operation() {
    let drafts = [Draft::new, Draft::policy, Draft::pixels, Draft::classified, Draft::rows];
    let kinds: Vec<u8> = drafts.iter().flat_map(|draft| draft(I8).ops).map(|op| op.bytes()[0]).collect();
    OpKind::ALL.iter().for_each(|kind| assert!(kinds.contains(&kind.code()), "no draft has {kind:?}"));
    for draft in drafts {
        ALL.iter().for_each(|&precision| accepted(draft(precision), |_| ()));
    }
}

#[test]
fn what_is_no_file_is_told_from_what_is_damaged() {
    let file = Draft::new(I8).file();
    let bytes = file.bytes();
    let with = |at: usize, value: u8| {
        let mut copy = bytes.to_vec();
        copy[at] = value;
        let sum = checksum(&copy);
        validate(&copy, sum).map(|_| ())
    };
    let header = size_of::<Header>();
    assert_eq!(
        validate(&bytes[..header - 1], 0).err(),
        Some(ModelError::Truncated { expected: header, found: header - 1 })
    );
    let expected = bytes.len();
    for found in [header, expected - 1] {
        assert_eq!(validate(&bytes[..found], 0).err(), Some(ModelError::Truncated { expected, found }));
    }
    assert_eq!(with(0, b'V'), Err(ModelError::Magic));
    assert_eq!(with(3, b'V'), Err(ModelError::Magic));
    assert_eq!(with(5, 1), Err(ModelError::Version { found: crate::format::VERSION + 256 }));
    assert_eq!(with(6, 3), Err(ModelError::Precision { found: 3 }));
    assert!(matches!(with(bytes.len() - 1, 0xFF), Err(ModelError::Checksum { .. })));
    let longer: Vec<u8> = [bytes, &[0]].concat();
    assert!(matches!(validate(&longer, checksum(&longer)), Err(ModelError::Malformed { field: Field::Header, .. })));
}

#[test]
fn header() {
    let tensors = Draft::new(I8).tensors.len() as u16;
    bounds!(I8, Header, |d, v| d.header.output = v, [0, 1], [2]);
    bounds!(I8, Header, |d, v| d.header.reserved_end[17] = v, [0], [1]);
    bounds!(I8, Header, |d, v| d.header.arena_bytes += v, [16], [1, 8]);
    bounds!(I8, Header, |d, v| d.header.arena_bytes = v, [1 << 30], [(1 << 30) + 16]);
    bounds!(I8, Offset, |d, v| d.header.tensors_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Offset, |d, v| d.header.ops_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Offset, |d, v| d.header.schedules_at = v, [], [1, 0xFFFF_FFF0, 16]);
    bounds!(I8, Header, |d, v| d.header.tensors = v, [], [NONE]);
    bounds!(I8, Header, |d, v| d.header.ops = v, [], [NONE]);
    bounds!(I8, Offset, |d, v| d.header.tensors = v, [], [NONE - 1]);
    bounds!(I8, Offset, |d, v| d.header.ops = v, [], [NONE - 1]);
    bounds!(I8, Header, |d, v| d.header.schedules = v, [1], [0]);
    bounds!(I8, Offset, |d, v| d.header.schedules = v, [], [u16::MAX]);
    bounds!(I8, Text, |d, v| d.header.name = [PARAMETERS, v], [], [65]);
    // Sixty-four bytes of text: the pattern of the parameters is text up to its end.
    bounds!(I8, Text, |d, v| d.header.name = v, [[PARAMETERS, 64]], [[PARAMETERS + 1, 4], [0xFFFF_FFF0, 4], [16, 4]]);
    bounds!(
        I8,
        Text,
        |d, v| d.header.provenance = v,
        [[PARAMETERS, 1024]],
        [[PARAMETERS, 1025], [PARAMETERS + 1, 4], [0xFFFF_FFF0, 4]]
    );
    bounds!(I8, Header, |d, v| d.header.classes = v, [3, 4], [2, 0]);
    bounds!(I8, Header, |d, v| d.header.unconditional_class = v, [0, 2], [3, NONE]);
    bounds!(I8, Header, |d, v| d.header.conditioning = v, [], [(1 << 15) + 1]);
    bounds!(I8, Operand, |d, v| d.header.conditioning = v, [], [1 << 15, 3, 5]);
    bounds!(I8, Lifetime, |d, v| d.header.sample = v, [], [tensors, NONE, PREDICTION]);
    bounds!(I8, Header, |d, v| d.header.prediction = v, [], [tensors, SAMPLE, NORM]);
    accepted(I8, |d| d.keep_before(OLDER));
    accepted(I8, |d| d.keep_before(NEWER));
    accepted(I8, |d| {
        d.keep_before(UNCONDITIONAL);
        d.header.unconditional_class = NONE;
    });
    refused(I8, Field::Lifetime, |d| d.header.unconditional = NONE);
    accepted(I8, |d| d.header.history = [OLDER, NEWER]);
    for history in [[NONE, NEWER], [NEWER, NEWER]] {
        refused(I8, Field::Header, |d| {
            d.keep_before(OLDER);
            d.header.history = history;
        });
    }
    for history in [[SAMPLE, NONE], [UNCONDITIONAL, NONE], [tensors, NONE]] {
        refused(I8, Field::Header, |d| {
            d.keep_before(NEWER);
            d.header.history = history;
        });
    }
    for unconditional in [SAMPLE, tensors] {
        refused(I8, Field::Header, |d| {
            d.keep_before(UNCONDITIONAL);
            d.header.unconditional = unconditional;
        });
    }
    // Where no operation looks at the schedules.
    let mut chain = chain::Chain::new(I8, [1, 1, 2], 1);
    chain.push([1, 1, 2], convolution(I8));
    bounds!(chain.draft.clone(), Offset, |d, v| d.header.schedules = v, [1], [u16::MAX]);
    // Nobody writes what the sampler keeps, so that it is not what the network predicts.
    refused(chain.draft, Field::Header, |d| {
        d.conv(0).output = d.add([1, 1, 2], crate::format::Element::I8, [0, 1]);
        d.header.history[0] = PREDICTION;
    });
    // Classes without a conditioning vector.
    refused(I8, Field::Header, |d| d.header.conditioning = 0);
}

#[test]
fn text_is_utf_8() {
    // In the file a byte of a name that no text has: 0xFF of a history's NONE.
    let text = |d: &mut Draft| {
        d.conv(FIRST).residual = NONE;
        let at = d.file();
        let ops = Header::read(at.bytes(), 0).ops_at;
        [ops + 2 * crate::format::OP_BYTES as u32, 16]
    };
    refused(I8, Field::Text, |d| d.header.name = text(d));
    refused(I8, Field::Text, |d| d.header.provenance = text(d));
}
