//! Hostile model files: cut, flipped, forged and misplaced.

use std::mem::offset_of;

use waft::format::{
    Activate, Attention, Classifier, Conv2d, Embed, Filter, GroupNorm, Header, LayerNorm, Linear, LinearAttention,
    OP_BYTES, Observe, Op, Precision, STEP_BYTES, Schedule, StepScales, Tensor, seal,
};
use waft::{Arena, Model, ModelError, Request, RequestError, RunError, Session, SessionError};
use waft_host::export::ExportOptions;
use waft_host::sample::AlignedBytes;
use waft_tests::forge::changed;
use waft_tests::small::{small, small_stepwise};
use waft_tests::{digits, exported, golden};

const CHECKSUM: usize = offset_of!(Header, checksum);

/// Runs a model that validates; whatever it computes, it must end.
fn exercise(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let mut memory = AlignedBytes::zeroed(model.arena_bytes());
    let Ok(mut session) = Session::new(&model, memory.as_mut_slice()) else { return };
    for request in [Request::new(), Request::new().class(0), Request::new().steps(2)] {
        if let Ok(mut run) = session.sample(request) {
            let slices = run.progress().slices;
            for _ in 0..slices.min(2_000) {
                if !matches!(run.step(), Ok(Some(_))) {
                    break;
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let file = small();
    let file = file.as_slice();
    assert!(Model::from_bytes(file).is_ok());
    for len in 0..file.len() {
        assert!(matches!(Model::from_bytes(&file[..len]), Err(ModelError::Truncated { .. })), "{len} bytes");
    }
    let mut longer = file.to_vec();
    longer.push(0);
    assert!(matches!(Model::from_bytes(&longer), Err(ModelError::Malformed { .. })), "a byte too many");
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut file = small();
    let bytes = file.as_mut_slice();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(Model::from_bytes(bytes).is_err(), "byte {at}, bit {bit}");
            bytes[at] ^= 1 << bit;
        }
    }
    assert!(Model::from_bytes(bytes).is_ok());
}

/// A forger who mends the checksum changes any byte of the header and the tables: refused, or harmless.
#[test]
fn forged_tables_are_refused_or_harmless() {
    forge_tables(&small());
    forge_tables(&small_stepwise());
}

fn forge_tables(file: &AlignedBytes) {
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let header = *model.header();
    let mut places: Vec<usize> = (0..size_of::<Header>()).filter(|at| !(CHECKSUM..CHECKSUM + 4).contains(at)).collect();
    let mut table = |at: u32, records: u16, bytes: usize| {
        places.extend(at as usize..at as usize + usize::from(records) * bytes);
    };
    table(header.tensors_at, header.tensors, size_of::<Tensor>());
    table(header.ops_at, header.ops, OP_BYTES);
    table(header.schedules_at, header.schedules, size_of::<Schedule>());
    let schedule = model.schedule(0).expect("there is one");
    places.extend(schedule.rows as usize..schedule.rows as usize + 2 * STEP_BYTES);
    places.extend(schedule.biases as usize..(schedule.biases + 2 * schedule.bias_bytes) as usize);
    let mut forged = file.clone();
    let mut refused = 0;
    for &at in &places {
        for value in [0x00, 0x01, 0x7F, 0x80, 0xFF, file.as_slice()[at] ^ 0x10, file.as_slice()[at].wrapping_add(1)] {
            let bytes = forged.as_mut_slice();
            bytes[at] = value;
            seal(bytes);
            refused += u32::from(Model::from_bytes(bytes).is_err());
            exercise(bytes);
            bytes.copy_from_slice(file.as_slice());
        }
    }
    assert!(refused > 1000, "{refused} of {} forgeries refused", 7 * places.len());
}

/// What validation says of 32 other bits.
fn forged(file: &AlignedBytes, at: usize, value: u32) -> Result<(), ModelError> {
    changed(file, at, |field: &mut u32| *field = value)
}

#[test]
fn offsets_and_sizes_out_of_range_are_refused() {
    let file = small();
    let header = *Model::from_bytes(file.as_slice()).expect("a model").header();
    let far = [1, 8, 0x7FFF_FFF0, 0xFFFF_FFF0, header.file_bytes, header.file_bytes + 16];
    for field in [
        offset_of!(Header, tensors_at),
        offset_of!(Header, ops_at),
        offset_of!(Header, schedules_at),
        offset_of!(Header, name),
        offset_of!(Header, provenance),
    ] {
        for value in far {
            let refused = forged(&file, field, value);
            assert!(
                matches!(refused, Err(ModelError::Malformed { .. })),
                "header field {field} = {value}: {refused:?}"
            );
        }
    }
    for index in 0..usize::from(header.tensors) {
        let at = header.tensors_at as usize + index * size_of::<Tensor>();
        for value in [header.arena_bytes, 0xFFFF_FFF0, 8] {
            assert!(forged(&file, at, value).is_err(), "tensor {index} at {value}");
        }
        assert!(forged(&file, at + offset_of!(Tensor, bytes), 0xFFFF_FFFF).is_err());
        assert!(
            forged(&file, at + offset_of!(Tensor, rows), 0xFFFF_FFFF).is_err(),
            "rows and columns of tensor {index}"
        );
    }
    for index in 0..header.ops {
        let at = header.ops_at as usize + usize::from(index) * OP_BYTES;
        let op = Model::from_bytes(file.as_slice()).expect("a model").op(index).expect("exists");
        for value in far {
            let parameters = match op {
                Op::Conv2d(_) => offset_of!(Conv2d, weights),
                Op::GroupNorm(_) => offset_of!(GroupNorm, gamma),
                Op::Embed(_) => offset_of!(Embed, table),
                Op::Linear(_) => offset_of!(Linear, weights),
                Op::Observe(_) => offset_of!(Observe, centers),
                Op::LayerNorm(_) => offset_of!(LayerNorm, gamma),
                Op::Attention(_) | Op::LinearAttention(_) | Op::Activate(_) | Op::Classifier(_) | Op::Filter(_) => {
                    continue;
                }
            };
            assert!(forged(&file, at + parameters, value).is_err(), "parameters of {op:?} at {value}");
        }
        let output = match op {
            Op::Conv2d(_) => offset_of!(Conv2d, output),
            Op::GroupNorm(_) => offset_of!(GroupNorm, output),
            Op::Attention(_) => offset_of!(Attention, output),
            Op::Embed(_) => offset_of!(Embed, output),
            Op::Linear(_) => offset_of!(Linear, output),
            Op::Activate(_) => offset_of!(Activate, output),
            Op::Observe(_) => offset_of!(Observe, output),
            Op::LayerNorm(_) => offset_of!(LayerNorm, output),
            Op::LinearAttention(_) => offset_of!(LinearAttention, output),
            Op::Classifier(_) => offset_of!(Classifier, output),
            Op::Filter(_) => offset_of!(Filter, output),
        };
        assert!(forged(&file, at + output, 0xFFFF_FFFF).is_err(), "output of {op:?}");
        assert!(forged(&file, at, 0x0000_00FF).is_err(), "kind of {op:?}");
    }
}

#[test]
fn scales_of_steps_out_of_range_are_refused() {
    let file = small_stepwise();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let header = *model.header();
    let bias_bytes = model.schedule(0).expect("there is one").bias_bytes;
    let mut seen = 0;
    for index in 0..header.ops {
        let Some(Op::Conv2d(op)) = model.op(index) else { continue };
        let at = header.ops_at as usize + usize::from(index) * OP_BYTES;
        let refused = |field: usize, value: u32| {
            let found = forged(&file, at + field, value);
            assert!(matches!(found, Err(ModelError::Malformed { .. })), "field {field} = {value} of {op:?}: {found:?}");
        };
        if op.weight_sums == 0 {
            // Rings of 16 bits and inputs as they are have one scale.
            refused(offset_of!(Conv2d, weight_sums), size_of::<Header>() as u32);
            continue;
        }
        seen += 1;
        for place in [bias_bytes - size_of::<StepScales>() as u32 + 4, bias_bytes, op.step_scales + 1, u32::MAX - 3] {
            refused(offset_of!(Conv2d, step_scales), place);
        }
        for offset in [1, size_of::<Header>() as u32 - 16, header.file_bytes, 0xFFFF_FFF0] {
            refused(offset_of!(Conv2d, weight_sums), offset);
        }
    }
    assert!(seen >= 3, "{seen}");
}

#[test]
fn tensors_cannot_be_moved_onto_each_other() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let header = *model.header();
    let mut refused = 0;
    for a in 0..header.tensors {
        for b in 0..header.tensors {
            let (ta, tb) = (model.tensor(a).expect("exists"), model.tensor(b).expect("exists"));
            let together = ta.first < tb.last && tb.first < ta.last;
            if a != b && together && ta.offset != tb.offset && tb.offset + ta.bytes <= header.arena_bytes {
                let at = header.tensors_at as usize + usize::from(a) * size_of::<Tensor>();
                assert!(forged(&file, at, tb.offset).is_err(), "#{a} moved onto #{b}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20);
}

#[test]
fn other_precisions_do_not_fit() {
    let file = small();
    let forged = |change: &dyn Fn(&mut Header)| changed(&file, 0, change);
    for precision in [Precision::F16, Precision::F32] {
        let refused = forged(&|header| header.precision = precision.code());
        assert!(matches!(refused, Err(ModelError::Malformed { .. })), "{precision:?}");
    }
    assert_eq!(forged(&|header| header.precision = 9), Err(ModelError::Precision { found: 9 }));
    assert_eq!(forged(&|header| header.version -= 1), Err(ModelError::Version { found: waft::format::VERSION - 1 }));
    assert_eq!(forged(&|header| header.magic = [0; 4]), Err(ModelError::Magic));
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let expected = model.arena_bytes();
    let mut memory = AlignedBytes::zeroed(expected + 32);
    for found in [0, 1, expected - 1] {
        let error = Session::new(&model, &mut memory.as_mut_slice()[..found]).err();
        assert_eq!(error, Some(SessionError::ArenaTooSmall { expected, found }));
    }
    for shift in [1, 4, 8] {
        let error = Session::new(&model, &mut memory.as_mut_slice()[shift..]).err();
        assert_eq!(error, Some(SessionError::ArenaMisaligned));
    }
    assert!(Session::new(&model, &mut memory.as_mut_slice()[16..]).is_ok());

    let mut shifted = AlignedBytes::zeroed(file.as_slice().len() + 1);
    shifted.as_mut_slice()[1..].copy_from_slice(file.as_slice());
    let model = Model::from_bytes(&shifted.as_slice()[1..]).expect("bytes are bytes");
    assert_eq!(Session::new(&model, memory.as_mut_slice()).err(), Some(SessionError::ModelMisaligned));
}

#[test]
fn every_precision_and_network_survives_random_damage() {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for checkpoint in [golden("heads"), digits()] {
        for precision in [Precision::I8, Precision::F16, Precision::F32] {
            let options = ExportOptions { precision, steps: vec![2], calibration_images: 1, ..Default::default() };
            let file = exported(&checkpoint, &options).bytes;
            let mut damaged = file.clone();
            for _ in 0..150 {
                let bytes = damaged.as_mut_slice();
                for _ in 0..=next() % 4 {
                    let header = Model::from_bytes(file.as_slice()).expect("a model").header().ops_at as usize;
                    // Half of the damage hits the tables, where it hurts.
                    let at = if next() % 2 == 0 { header + next() % 2048 } else { next() % bytes.len() };
                    let at = at.min(bytes.len() - 1);
                    bytes[at] = next() as u8;
                }
                seal(bytes);
                exercise(bytes);
                bytes.copy_from_slice(file.as_slice());
            }
        }
    }
}

#[test]
fn requests_that_a_model_cannot_serve_are_refused() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let mut memory = AlignedBytes::zeroed(model.arena_bytes());
    let mut session = Session::new(&model, memory.as_mut_slice()).expect("fits");
    let error = |session: &mut Session<'_>, request| session.sample(request).err();
    assert_eq!(error(&mut session, Request::new().steps(3)), Some(RequestError::Steps { asked: 3 }));
    assert_eq!(error(&mut session, Request::new().class(2)), Some(RequestError::Class { asked: 2, classes: 2 }));
    assert!(session.predict(0, 2, None).is_err() && session.predict(1, 0, None).is_err());
}

/// The arena of a static and the model of a constant: what firmware uses.
#[test]
fn constants_and_statics_fit_exactly() {
    use waft_models::digits::I8;
    static ARENA: Arena<{ I8.arena_bytes() }> = Arena::new();
    let memory = ARENA.take().expect("first use");
    assert!(ARENA.take().is_none(), "the arena is handed out once");
    let mut session = Session::new(&I8, memory).expect("fits exactly");
    let given = [0i32; 10];
    let noise = waft::noise::Given::new(&given, 64);
    let mut run = session.sample_with(Request::new().class(1), noise).expect("valid");
    let error = loop {
        match run.step() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ten numbers are not enough"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, RunError::NoiseExhausted { draw: 0 });
}
