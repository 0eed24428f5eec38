//! The memory plan: bounds, an overlap check of its own, and an arena in which every dead byte is poisoned.

use waft::format::{NONE, Op, Precision};
use waft::{Guidance, Model, Request, Session};
use waft_host::cost::{self, Core, Way};
use waft_host::export::{Export, ExportOptions, ResidualWidth, Room};
use waft_host::sample::arena;
use waft_host::target_core;
use waft_tests::{digits, exported, golden, model};

fn options(precision: Precision, residual: ResidualWidth) -> ExportOptions {
    ExportOptions { precision, residual, steps: vec![3], calibration_images: 2, ..Default::default() }
}

fn everything() -> Vec<Export> {
    let mut exports = vec![];
    for checkpoint in [digits(), golden("cifar_small"), golden("heads"), golden("velocity")] {
        for (precision, residual) in [
            (Precision::I8, ResidualWidth::Auto),
            (Precision::I8, ResidualWidth::Narrow),
            (Precision::F16, ResidualWidth::Auto),
            (Precision::F32, ResidualWidth::Auto),
        ] {
            exports.push(exported(&checkpoint, &options(precision, residual)));
        }
        for (precision, window) in [(Precision::I8, 6144), (Precision::F16, 12288)] {
            let options = ExportOptions { stream: Some(window), ..options(precision, ResidualWidth::Auto) };
            exports.push(exported(&checkpoint, &options));
        }
    }
    exports
}

#[test]
fn arenas_meet_the_lower_bound() {
    for export in everything() {
        let (arena, bound) = (export.report.arena_bytes, export.report.arena_lower_bound_bytes);
        assert!(arena as f64 <= 1.02 * bound as f64, "{arena} bytes, lower bound {bound}");
    }
}

/// First and last operation that touch each tensor, from the operations alone.
fn lives(model: &Model<'_>) -> Vec<(u16, u16)> {
    let header = model.header();
    let mut lives = vec![(u16::MAX, 0); usize::from(model.tensors())];
    for index in 0..model.ops() {
        let op = model.op(index).expect("exists");
        for id in op.operands().into_iter().chain([op.output()]).filter(|&id| id != NONE) {
            let life = &mut lives[usize::from(id)];
            *life = (life.0.min(index), life.1.max(index));
        }
    }
    for id in [header.sample, header.unconditional] {
        if id != NONE {
            lives[usize::from(id)] = (0, model.ops());
        }
    }
    lives[usize::from(header.prediction)].1 = model.ops();
    lives
}

/// Two tensors may share an address at one operation only, where one is read for the last time and the other written.
#[test]
fn nothing_that_is_alive_overlaps() {
    for export in everything() {
        let model = model(&export.bytes);
        let lives = lives(&model);
        let mut shared = 0;
        for a in 0..model.tensors() {
            for b in a + 1..model.tensors() {
                let (ta, tb) = (model.tensor(a).expect("exists"), model.tensor(b).expect("exists"));
                let (la, lb) = (lives[usize::from(a)], lives[usize::from(b)]);
                let meet = ta.range().start < tb.range().end && tb.range().start < ta.range().end;
                if !meet || la.1 < lb.0 || lb.1 < la.0 {
                    continue;
                }
                let (dying, born, at) = if la.1 == lb.0 { (a, b, la.1) } else { (b, a, lb.1) };
                let op = model.op(at).expect("an operation, not the sampler");
                assert_eq!(lives[usize::from(dying)].1, lives[usize::from(born)].0, "#{a} and #{b} live together");
                assert_eq!(op.output(), born);
                let allowed = match op {
                    Op::Conv2d(op) => op.residual == dying || op.sources.contains(&dying),
                    Op::Attention(op) => op.query == dying,
                    _ => false,
                };
                assert!(allowed, "operation {at} may not write over #{dying}");
                shared += 1;
            }
        }
        assert!(shared > 0, "no result was written in place");
    }
}

/// Draws with every byte that holds no live tensor overwritten before each operation.
fn draw(export: &Export, poison: Option<u8>) -> Vec<u8> {
    let model = &model(&export.bytes);
    let weights = export.weights.as_deref().unwrap_or_default();
    let lives = lives(model);
    let mut memory = arena(model);
    memory.as_mut_slice().fill(poison.unwrap_or(0));
    let mut session = Session::with_weights(model, memory.as_mut_slice(), weights).expect("fits");
    let mut request = Request::new().seed(5);
    if model.classes() > 0 {
        request = request.class(1);
    }
    if model.has_guidance() {
        request = request.guidance(Guidance::from_ratio(2, 1));
    }
    let mut run = session.sample(request).expect("valid");
    let mut before = None;
    loop {
        // An operation that waits for its weights has started already.
        if let (Some(poison), Some(op)) = (poison, run.starts().filter(|&op| before != Some(op))) {
            before = Some(op);
            let mut dead = vec![true; model.arena_bytes()];
            for id in 0..model.tensors() {
                let (first, last) = lives[usize::from(id)];
                // What this operation writes is not alive yet, nor is its scratch.
                if first < op && op <= last || id == model.header().sample || id == model.header().unconditional {
                    dead[model.tensor(id).expect("exists").range()].fill(false);
                }
            }
            for (byte, dead) in run.arena_mut().iter_mut().zip(dead) {
                if dead {
                    *byte = poison;
                }
            }
        }
        if run.step().expect("runs").is_none() {
            break;
        }
    }
    run.image().expect("complete").data().to_vec()
}

#[test]
fn dead_memory_does_not_matter() {
    for export in everything() {
        let clean = draw(&export, None);
        for poison in [0x00, 0xFF, 0x7F, 0x80] {
            assert_eq!(draw(&export, Some(poison)), clean, "poison {poison:02x}");
        }
    }
}

/// A core gets what its own coefficients say is faster: by them no convolution takes more than in the file of the default core, and
/// on Cortex-M55, whose patches take 16 products at once, none is computed by tiles. Over rings of 8 bits all files draw the same.
#[test]
fn cores_get_what_their_instructions_say() {
    let narrow = |core: &'static Core| {
        let patches = Room::Bytes(1 << 20);
        exported(&digits(), &ExportOptions { core, patches, ..options(Precision::I8, ResidualWidth::Narrow) })
    };
    let default = narrow(target_core::default_core());
    let convolutions = |export: &Export| -> Vec<Op> {
        let model = model(&export.bytes);
        (0..model.ops()).filter_map(|index| model.op(index)).filter(|op| matches!(op, Op::Conv2d(_))).collect()
    };
    let ways = |export: &Export| -> Vec<Way> {
        let way = |op: Op| if let Op::Conv2d(op) = op { Way::of(&op) } else { Way::Ring };
        convolutions(export).into_iter().map(way).collect()
    };
    let tiled = |export: &Export| ways(export).iter().filter(|way| matches!(way, Way::Tiles(_))).count();
    assert!(tiled(&default) >= 4, "{:?}", ways(&default));
    let picture = draw(&default, None);
    for core in cost::cores().values() {
        let core = target_core::find(&core.core).expect("a name of a core");
        let chosen = narrow(core);
        assert_eq!(draw(&chosen, None), picture, "{}", core.core);
        for (own, other) in convolutions(&chosen).iter().zip(convolutions(&default)) {
            let ways = [own, &other].map(|op| if let Op::Conv2d(op) = op { Way::of(op) } else { Way::Ring });
            let [own, other] = [(&chosen, own), (&default, &other)].map(|(export, op)| {
                let work = cost::of_op(&model(&export.bytes), op);
                // The way into the ring is the same.
                let work = work.into_iter().filter(|(kind, _)| !kind.ends_with(" gather")).collect();
                cost::instructions(core, &work).expect("was measured")
            });
            // Tiles have to be worth their memory, which is a tenth of what patches take.
            assert!(0.9 * own <= other, "{}: {own} and {other} instructions for {ways:?}", core.core);
            assert!(own <= other || ways[0] == Way::Patches, "{}: {own} and {other} for {ways:?}", core.core);
        }
        if core.core == "Cortex-M55" {
            assert_eq!(tiled(&chosen), 0, "{:?}", ways(&chosen));
        }
    }
}

/// A 32×32 model with channels (32, 64, 64) needs at most 0.65 of what its graph takes when every result is kept apart. What
/// memory is spent on speed is not counted.
#[test]
fn rewrites_save_a_third_of_a_larger_network() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 3, "out_channels": 3,
        "block_out_channels": [32, 64, 64], "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    });
    waft_tests::random_checkpoint(folder.path(), &config);
    for residual in [ResidualWidth::Auto, ResidualWidth::Narrow] {
        let export = exported(
            folder.path(),
            &ExportOptions { calibration_images: 1, patches: Room::None, ..options(Precision::I8, residual) },
        );
        let report = &export.report;
        let ratio = report.arena_bytes as f64 / report.arena_materialized_bytes as f64;
        println!("{} of {} bytes: {ratio:.3}", report.arena_bytes, report.arena_materialized_bytes);
        assert!(ratio <= 0.65, "{ratio}");
    }
}
