//! Weights that are not addressable memory: the same pictures in little memory, whatever the source does.

use std::mem::offset_of;

use waft::format::{Conv2d, Header, OP_BYTES, Op, Precision};
use waft::weights::{File, Flash, Line, PIECE};
use waft::{Model, Request, RunError, Session, SessionError, WeightSource};
use waft_host::export::{Export, ExportError, ExportOptions};
use waft_host::sample::arena;
use waft_tests::forge::changed;
use waft_tests::{digits, exported, golden, model};

fn options(precision: Precision, stream: Option<u64>) -> ExportOptions {
    ExportOptions { precision, stream, steps: vec![4], calibration_images: 2, ..Default::default() }
}

fn request(model: &Model<'_>) -> Request {
    let request = Request::new().seed(11);
    if model.classes() > 0 { request.class(1) } else { request }
}

/// The picture, and the errors on the way to it; gives up after `patience` of them.
fn draw<W: WeightSource>(export: &Export, source: W, patience: usize) -> (Option<Vec<u8>>, Vec<RunError>) {
    let model = model(&export.bytes);
    let mut memory = arena(&model);
    let mut session = Session::with_weights(&model, memory.as_mut_slice(), source).expect("fits");
    let mut run = session.sample(request(&model)).expect("valid");
    let mut errors = vec![];
    loop {
        match run.step() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                errors.push(error);
                assert!(run.image().is_none(), "half a picture was handed out");
                if errors.len() > patience {
                    return (None, errors);
                }
            }
        }
    }
    (run.image().map(|image| image.data().to_vec()), errors)
}

fn weights(export: &Export) -> &[u8] {
    export.weights.as_deref().expect("streamed")
}

#[test]
fn streamed_models_draw_the_same_pictures() {
    for checkpoint in [digits(), golden("cifar_small"), golden("heads")] {
        for precision in [Precision::I8, Precision::F16, Precision::F32] {
            let resident = exported(&checkpoint, &options(precision, None));
            let (expected, _) = draw(&resident, &[][..], 0);
            assert!(expected.is_some());
            let mut chunked = 0;
            for limit in [1 << 20, 24 * 1024] {
                let streamed = exported(&checkpoint, &options(precision, Some(limit)));
                assert_eq!(draw(&streamed, weights(&streamed), 0).0, expected, "{precision:?} through {limit} bytes");
                let model = model(&streamed.bytes);
                for op in (0..model.ops()).filter_map(|index| model.op(index)) {
                    let Op::Conv2d(op) = op else { continue };
                    let [outputs, inputs] =
                        [op.output, op.scratch].map(|id| u64::from(model.tensor(id).expect("exists").channels));
                    let chunks = op.chunks(outputs, inputs).expect("streamed");
                    let window = u64::from(model.tensor(op.window).expect("exists").bytes);
                    assert!(
                        window <= limit && chunks.buffers(window) * chunks.largest() <= window.max(chunks.largest())
                    );
                    chunked += u32::from(chunks.count > 1);
                }
            }
            assert!(chunked > 0 || checkpoint != digits(), "no convolution came in several chunks in {precision:?}");
        }
    }
}

/// The shipped model through 16 KiB: arena and window in at most 18 KiB, which leaves two for stack and statics.
#[test]
fn digits_fit_twenty_kilobytes_with_their_window() {
    let streamed = exported(&digits(), &ExportOptions { steps: vec![], ..options(Precision::I8, Some(16 * 1024)) });
    let report = &streamed.report;
    println!("arena {} bytes, weights {}", report.arena_bytes, report.weights_bytes);
    assert!(report.arena_bytes <= 18 * 1024, "{} bytes", report.arena_bytes);
    assert!(report.arena_bytes as f64 <= 1.02 * report.arena_lower_bound_bytes as f64);
}

#[test]
fn a_window_that_cannot_hold_a_block_is_refused_by_name() {
    let checkpoint = waft_host::checkpoint::Checkpoint::open(digits()).expect("opens");
    let refused = waft_host::export::export(&checkpoint, &options(Precision::I8, Some(1000)), &());
    let Err(refused @ ExportError::Window { limit: 1000, .. }) = refused else { panic!("exported") };
    let text = refused.to_string();
    assert!(text.contains("stream = 1000") && text.contains("conv"), "{text}");
}

#[test]
fn a_session_without_a_source_is_refused() {
    let streamed = exported(&digits(), &options(Precision::I8, Some(8192)));
    let model = model(&streamed.bytes);
    let mut memory = arena(&model);
    assert_eq!(Session::new(&model, memory.as_mut_slice()).err(), Some(SessionError::WeightsMissing));
}

/// Hands out `burst` bytes at a time, nothing every other time, and fails or lies when told to.
struct Faulty<'a> {
    weights: &'a [u8],
    burst: usize,
    asked: usize,
    fail_at: Option<usize>,
    flip_at: Option<usize>,
    sequence: Vec<u32>,
}

impl<'a> Faulty<'a> {
    fn new(weights: &'a [u8]) -> Self {
        Self { weights, burst: 100, asked: 0, fail_at: None, flip_at: None, sequence: vec![] }
    }
}

impl WeightSource for Faulty<'_> {
    type Error = ();

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
        assert!(into.len() <= PIECE && !into.is_empty());
        self.sequence.push(offset);
        self.asked += 1;
        if self.fail_at == Some(self.asked) {
            return Err(());
        }
        if self.asked.is_multiple_of(2) {
            return Ok(0);
        }
        let len = into.len().min(self.burst);
        into[..len].copy_from_slice(&self.weights[offset as usize..offset as usize + len]);
        if self.flip_at.is_some_and(|at| self.asked >= at) {
            self.flip_at = None;
            into[len / 2] ^= 0x10;
        }
        Ok(len)
    }
}

#[test]
fn late_bytes_and_errors_change_nothing_but_time() {
    let streamed = exported(&golden("heads"), &options(Precision::I8, Some(4096)));
    let (expected, errors) = draw(&streamed, weights(&streamed), 0);
    assert!(expected.is_some() && errors.is_empty());

    for burst in [1, 16, 100, usize::MAX] {
        let slow = Faulty { burst, ..Faulty::new(weights(&streamed)) };
        let (found, errors) = draw(&streamed, slow, 0);
        assert!(found == expected && errors.is_empty(), "burst {burst}: {errors:?}");
    }
    for at in [1, 2, 57, 500] {
        let failing = Faulty { fail_at: Some(at), ..Faulty::new(weights(&streamed)) };
        let (found, errors) = draw(&streamed, failing, 1);
        assert!(matches!(errors[..], [RunError::WeightsUnreadable { .. }]), "{errors:?}");
        assert_eq!(found, expected, "after the error at read {at}");

        let lying = Faulty { flip_at: Some(at), ..Faulty::new(weights(&streamed)) };
        let (found, errors) = draw(&streamed, lying, 1);
        assert!(matches!(errors[..], [RunError::WeightsDamaged { .. }]), "{errors:?}");
        assert_eq!(found, expected, "after the flipped bit at read {at}");
    }
}

#[test]
fn a_failed_run_leaves_the_session_usable() {
    let streamed = exported(&digits(), &options(Precision::I8, Some(8192)));
    let (expected, _) = draw(&streamed, weights(&streamed), 0);
    let model = model(&streamed.bytes);
    let mut memory = arena(&model);
    let source = Faulty { fail_at: Some(900), ..Faulty::new(weights(&streamed)) };
    let mut session = Session::with_weights(&model, memory.as_mut_slice(), source).expect("fits");
    let mut run = session.sample(request(&model)).expect("valid");
    let error = loop {
        match run.step() {
            Ok(step) => assert!(step.is_some(), "the failure never came"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RunError::WeightsUnreadable { .. }));
    assert!(run.image().is_none());
    let mut run = session.sample(request(&model)).expect("valid");
    while run.step().expect("runs").is_some() {}
    assert_eq!(run.image().map(|image| image.data().to_vec()), expected);
}

/// The weights of another model are found out at the first chunk.
#[test]
fn foreign_weights_are_refused() {
    let streamed = exported(&digits(), &options(Precision::I8, Some(8192)));
    let foreign = vec![0x55; weights(&streamed).len()];
    let (found, errors) = draw(&streamed, foreign.as_slice(), 0);
    assert!(found.is_none() && matches!(errors[..], [RunError::WeightsDamaged { chunk: 0, .. }]), "{errors:?}");
    // And a file that is too short where it ends.
    let (found, errors) = draw(&streamed, &weights(&streamed)[..5000], 0);
    assert!(found.is_none() && matches!(errors[..], [RunError::WeightsUnreadable { .. }]), "{errors:?}");
}

/// Reads go through the file from its beginning to its end, once for each call.
#[test]
fn reading_is_sequential() {
    let streamed = exported(&digits(), &options(Precision::I8, Some(16 * 1024)));
    let model = model(&streamed.bytes);
    let mut memory = arena(&model);
    let source = Faulty { burst: usize::MAX, ..Faulty::new(weights(&streamed)) };
    let mut session = Session::with_weights(&model, memory.as_mut_slice(), source).expect("fits");
    let mut run = session.sample(request(&model)).expect("valid");
    while run.step().expect("runs").is_some() {}
    let sequence = std::mem::take(&mut session.weights().sequence);
    let restarts = sequence.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert_eq!(restarts, 3, "four calls");
    assert!(sequence.windows(2).all(|pair| pair[1] <= pair[0] + PIECE as u32), "a gap");
}

/// Memory as the drivers see it: NOR flash, a file, a line.
struct Mock {
    bytes: Vec<u8>,
    at: usize,
}

impl embedded_io::ErrorType for Mock {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Mock {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Self::Error> {
        let len = into.len().min(77).min(self.bytes.len() - self.at);
        into[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

impl embedded_io::Seek for Mock {
    fn seek(&mut self, to: embedded_io::SeekFrom) -> Result<u64, Self::Error> {
        let embedded_io::SeekFrom::Start(at) = to else { return Err(embedded_io::ErrorKind::Unsupported) };
        self.at = usize::try_from(at).map_err(|_| embedded_io::ErrorKind::InvalidInput)?;
        Ok(at)
    }
}

impl embedded_storage::nor_flash::ErrorType for Mock {
    type Error = embedded_storage::nor_flash::NorFlashErrorKind;
}

impl embedded_storage::nor_flash::ReadNorFlash for Mock {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        embedded_storage::nor_flash::check_read(self, offset, bytes.len())?;
        bytes.copy_from_slice(&self.bytes[offset as usize..offset as usize + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

#[test]
fn flash_files_and_lines_give_the_same_picture() {
    let streamed = exported(&golden("heads"), &options(Precision::I8, Some(4096)));
    let (expected, _) = draw(&streamed, weights(&streamed), 0);
    let shifted = [&[0xEE; 64], weights(&streamed)].concat();
    let flash = Flash::new(Mock { bytes: shifted.clone(), at: 0 }, 64);
    assert_eq!(draw(&streamed, flash, 0), (expected.clone(), vec![]));
    let file = File::new(Mock { bytes: shifted, at: 0 }, 64);
    assert_eq!(draw(&streamed, file, 0), (expected.clone(), vec![]));
    // Four steps, the weights sent four times.
    let line = Line::new(Mock { bytes: weights(&streamed).repeat(4), at: 0 });
    assert_eq!(draw(&streamed, line, 0), (expected, vec![]));
}

/// Every value of the streaming fields that would read or write beside the window or the file is refused.
#[test]
fn forged_windows_are_refused() {
    let streamed = exported(&golden("heads"), &options(Precision::I8, Some(4096)));
    let original = model(&streamed.bytes);
    let header = *original.header();
    let accepted = |at: usize, value: u32| changed(&streamed.bytes, at, |field: &mut u32| *field = value).is_ok();
    let accepted_half = |at: usize, value: u16| changed(&streamed.bytes, at, |field: &mut u16| *field = value).is_ok();
    let total = offset_of!(Header, weights_bytes);
    assert!(!accepted(total, 0) && !accepted(total, header.weights_bytes - 1));
    for index in (0..original.ops()).filter(|&index| matches!(original.op(index), Some(Op::Conv2d(_)))) {
        let at = header.ops_at as usize + usize::from(index) * OP_BYTES;
        for window in [0xFFFEu16, 0, header.sample] {
            assert!(!accepted_half(at + offset_of!(Conv2d, window), window), "window {window} of operation {index}");
        }
        for blocks in [0u16, 0xFFFF] {
            let refused = !accepted_half(at + offset_of!(Conv2d, chunk_blocks), blocks);
            // More blocks than there are mean one chunk, which is right where there is one.
            let Some(Op::Conv2d(op)) = original.op(index) else { unreachable!("filtered above") };
            let outputs = original.tensor(op.output).expect("exists").channels;
            let single = usize::from(op.chunk_blocks) * 8 >= usize::from(outputs);
            assert!(refused || (blocks == 0xFFFF && single), "{blocks} blocks in operation {index}");
        }
        for offset in [8u32, 0xFFFF_FFF0, header.file_bytes] {
            assert!(!accepted(at + offset_of!(Conv2d, checks), offset), "checks of operation {index} at {offset}");
        }
        for offset in [8u32, 0xFFFF_FFF0, header.weights_bytes] {
            assert!(!accepted(at + offset_of!(Conv2d, weights), offset), "weights of operation {index} at {offset}");
        }
    }
}
