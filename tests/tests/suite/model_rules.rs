//! Rules of the model file, each broken by a forger who mends the checksum.

use rand::{RngExt, SeedableRng};
use waft::format::{
    Activate, Attention, Classifier, Conv2d, Element, Embed, Filter, FixedStep, FloatStep, GroupNorm, Header,
    LayerNorm, Linear, LinearAttention, MAX_ALIVE, NONE, OP_BYTES, Observe, Op, Precision, Record, STEP_BYTES,
    Schedule, Tensor,
};
use waft::{Field, Model, ModelError};
use waft_host::export::{ExportOptions, ResidualWidth};
use waft_host::sample::AlignedBytes;
use waft_host::schedule::Solver;
use waft_tests::forge::{changed, forge};
use waft_tests::many::with_more_tensors;
use waft_tests::small::{small, small_of_size, small_with};
use waft_tests::{digits, exported};

/// Places of the records of operations and of tensors.
fn places(model: &Model<'_>) -> (impl Fn(u16) -> usize, impl Fn(u16) -> usize) {
    let header = *model.header();
    let op = move |index: u16| header.ops_at as usize + usize::from(index) * OP_BYTES;
    let tensor = move |id: u16| header.tensors_at as usize + usize::from(id) * size_of::<Tensor>();
    (op, tensor)
}

fn is_malformed(result: Result<(), ModelError>, expected: Field) -> bool {
    matches!(result, Err(ModelError::Malformed { field, .. }) if field == expected)
}

/// With 16 fractional bits the square of a mean around such a zero would not fit 64 bits.
#[test]
fn zero_points_out_of_range_are_refused() {
    let mut seen = [false; 2];
    for file in [small_with(&ExportOptions { residual: ResidualWidth::Narrow, ..Default::default() }), small()] {
        let model = Model::from_bytes(file.as_slice()).expect("a model");
        let (op_at, _) = places(&model);
        for index in 0..model.ops() {
            let Some(Op::GroupNorm(op)) = model.op(index) else { continue };
            let wide = model.tensor(op.sources[0]).expect("exists").element() == Element::I16;
            let zero = |zero| changed(&file, op_at(index), |op: &mut GroupNorm| op.zero[0] = zero);
            let (good, bad): (&[i32], &[i32]) =
                if wide { (&[0], &[1, -1, 1 << 15, -(1 << 15)]) } else { (&[-128, 0, 127], &[-129, 128, 1 << 15]) };
            assert!(good.iter().all(|&z| zero(z).is_ok()) && bad.iter().all(|&z| is_malformed(zero(z), Field::Op)));
            seen[usize::from(wide)] = true;
        }
    }
    assert_eq!(seen, [true; 2]);
}

/// A tensor lives from the operation that writes it: no image depends on what the arena held.
#[test]
fn tensors_that_nobody_writes_are_refused() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let header = *model.header();
    let (_, tensor_at) = places(&model);
    let mut refused = 0;
    for id in (0..header.tensors).filter(|&id| id != header.sample && id != header.unconditional) {
        let first = model.tensor(id).expect("exists").first;
        if first > 0 {
            let result = changed(&file, tensor_at(id), |tensor: &mut Tensor| tensor.first = first - 1);
            assert!(is_malformed(result, Field::Lifetime), "tensor {id}: {result:?}");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn reserved_bytes_are_zeros() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let (op_at, tensor_at) = places(&model);
    let refused = |at: usize, what: &str| {
        let result = changed(&file, at, |byte: &mut u8| assert_eq!(std::mem::replace(byte, 1), 0, "{what}"));
        assert!(matches!(result, Err(ModelError::Malformed { .. })), "{what}");
    };
    fn reserved<R: Record>() -> impl Iterator<Item = usize> {
        let fields = R::FIELDS.windows(2).map(|pair| (pair[0], pair[1].at));
        let last = R::FIELDS.last().map(|field| (*field, R::BYTES));
        fields
            .chain(last)
            .filter(|(field, _)| field.name.starts_with("reserved"))
            .flat_map(|(field, end)| field.at..end)
    }
    reserved::<Header>().for_each(|at| refused(at, "header"));
    reserved::<Tensor>().for_each(|at| refused(tensor_at(0) + at, "tensor"));
    reserved::<Schedule>().for_each(|at| refused(model.header().schedules_at as usize + at, "schedule"));
    for index in 0..model.ops() {
        let bytes: Vec<usize> = match model.op(index).expect("exists") {
            Op::Conv2d(_) => reserved::<Conv2d>().collect(),
            Op::GroupNorm(_) => reserved::<GroupNorm>().collect(),
            Op::Attention(_) => reserved::<Attention>().collect(),
            Op::Embed(_) => reserved::<Embed>().collect(),
            Op::Linear(_) => reserved::<Linear>().collect(),
            Op::Activate(_) => reserved::<Activate>().collect(),
            Op::Observe(_) => reserved::<Observe>().collect(),
            Op::LayerNorm(_) => reserved::<LayerNorm>().collect(),
            Op::LinearAttention(_) => reserved::<LinearAttention>().collect(),
            Op::Classifier(_) => reserved::<Classifier>().collect(),
            Op::Filter(_) => reserved::<Filter>().collect(),
        };
        bytes.into_iter().for_each(|at| refused(op_at(index) + at, "operation"));
    }
}

/// Both are read at once, and one slice of memory is lent once.
#[test]
fn a_bias_that_is_the_residual_is_refused() {
    let file = small_of_size(1, &ExportOptions { precision: Precision::F32, ..Default::default() });
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let (op_at, tensor_at) = places(&model);
    let mut seen = 0;
    for index in 0..model.ops() {
        let Some(Op::Conv2d(op)) = model.op(index) else { continue };
        if op.bias_tensor == NONE {
            continue;
        }
        // Of one pixel, a bias has the shape of the output.
        let shape = model.tensor(op.output).expect("exists");
        let copy = forge(&file, tensor_at(op.bias_tensor), |bias: &mut Tensor| {
            (bias.rows, bias.columns, bias.channels) = (shape.rows, shape.columns, shape.channels);
        });
        let result = changed(&copy, op_at(index), |op: &mut Conv2d| op.residual = op.bias_tensor);
        assert!(is_malformed(result, Field::Operand), "{result:?}");
        seen += 1;
    }
    assert!(seen > 0);
}

/// Any move of a tensor within the arena is refused if two tensors then share memory that nobody may write over, and accepted
/// if none do that did not before.
#[test]
fn tensors_share_memory_only_in_place() {
    let mut random = rand_pcg::Pcg32::seed_from_u64(7);
    let mut seen = [0; 2];
    for file in [small(), small_with(&ExportOptions { precision: Precision::F32, ..Default::default() })] {
        let model = Model::from_bytes(file.as_slice()).expect("a model");
        let (_, tensor_at) = places(&model);
        let tensors: Vec<Tensor> = (0..model.tensors()).filter_map(|id| model.tensor(id)).collect();
        let pairs = |tensors: &[Tensor]| -> Vec<(usize, usize)> {
            let share = |a: &Tensor, b: &Tensor| {
                a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes && a.first <= b.last && b.first <= a.last
            };
            let all = (0..tensors.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
            all.filter(|&(a, b)| share(&tensors[a], &tensors[b])).collect()
        };
        let replaces = |dying: usize, result: usize| {
            let (dying_at, op) = (tensors[dying].last, model.op(tensors[result].first));
            let reads = |op: Op| op.output() == result as u16 && op.operands().contains(&(dying as u16));
            dying_at == tensors[result].first && op.is_some_and(reads)
        };
        let before = pairs(&tensors);
        assert!(!before.is_empty(), "nothing is written in place");
        // Attention's result stays where its query lies.
        let moves = |id: &usize| {
            let mut ops = (0..model.ops()).filter_map(|index| model.op(index));
            !ops.any(|op| matches!(op, Op::Attention(op) if [op.query, op.output].contains(&(*id as u16))))
        };
        let movable: Vec<usize> = (0..tensors.len()).filter(moves).collect();
        for _ in 0..4000 {
            let id = movable[random.random_range(0..movable.len())];
            let mut moved = tensors.clone();
            let places = (model.header().arena_bytes - moved[id].bytes) / 16;
            moved[id].offset = 16 * random.random_range(0..=places);
            let result = changed(&file, tensor_at(id as u16), |tensor: &mut Tensor| *tensor = moved[id]);
            let after = pairs(&moved);
            let is_kept = |pair: &(usize, usize)| before.contains(pair) && pair.0 != id && pair.1 != id;
            if after.iter().any(|&(a, b)| !replaces(a, b) && !replaces(b, a)) {
                assert!(is_malformed(result, Field::Overlap), "tensor {id} at {}: {result:?}", moved[id].offset);
                seen[0] += 1;
            } else if after.iter().all(is_kept) {
                assert!(result.is_ok(), "tensor {id} at {}: {result:?}", moved[id].offset);
                seen[1] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen > 500), "{seen:?}");
}

/// Beyond so many the walk over the operations has no place to remember them.
#[test]
fn more_tensors_alive_than_can_be_checked_are_refused() {
    let file = small();
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let check = |more| Model::from_bytes(&with_more_tensors(&model, more, true)).map(|_| ());
    let most = (0..).find(|&more| check(more).is_err()).expect("a limit");
    assert!(is_malformed(check(most), Field::Alive) && is_malformed(check(3000), Field::Alive));
    assert!((MAX_ALIVE - 30..MAX_ALIVE).contains(&usize::from(most)), "{most} beside the model's own");
    // One after the other any number will do, and overlaps are still found.
    let many = with_more_tensors(&model, 3000, false);
    let model = Model::from_bytes(&many).expect("valid");
    let many = AlignedBytes::copy_of(&many);
    let (_, tensor_at) = places(&model);
    for id in model.tensors() - 3000..model.tensors() {
        let sample = model.tensor(model.header().sample).expect("exists").offset;
        if id % 100 == 0 {
            let result = changed(&many, tensor_at(id), |tensor: &mut Tensor| tensor.offset = sample);
            assert!(is_malformed(result, Field::Overlap), "{result:?}");
        }
    }
}

#[test]
fn coefficients_that_are_not_numbers_are_refused() {
    let file = small_with(&ExportOptions { precision: Precision::F32, ..Default::default() });
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let at = model.schedule(0).expect("exists").rows as usize;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let results = [
            changed(&file, at, |step: &mut FloatStep| step.x0[1] = bad),
            changed(&file, at, |step: &mut FloatStep| step.next[3] = bad),
            changed(&file, at, |step: &mut FloatStep| step.history[0] = bad),
        ];
        assert!(results.into_iter().all(|result| is_malformed(result, Field::Schedule)), "{bad}");
    }
    for bad in [f32::NAN, -1.0] {
        assert!(is_malformed(changed(&file, at, |step: &mut FloatStep| step.clip = bad), Field::Schedule), "{bad}");
    }
    assert!(changed(&file, at, |step: &mut FloatStep| step.clip = f32::INFINITY).is_ok(), "no clip");
}

/// The first step has no history, the second none of two steps ago, and a model without history has none at all.
#[test]
fn history_that_does_not_exist_is_refused() {
    let options = |precision| ExportOptions {
        precision,
        solver: Some(Solver::DpmSolver),
        timesteps: vec![vec![700, 500, 300, 100]],
        ..Default::default()
    };
    let export = |options: &ExportOptions| {
        let options = ExportOptions { calibration_images: 1, ..options.clone() };
        exported(&digits(), &options).bytes
    };
    let file = export(&options(Precision::F32));
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let header = *model.header();
    assert!(header.history[0] != NONE && header.history[1] == NONE, "order 2 looks back once");
    let at = |step: usize| model.schedule(0).expect("exists").rows as usize + step * STEP_BYTES;
    let set = |step: usize, k: usize| changed(&file, at(step), |step: &mut FloatStep| step.history[k] = 0.5);
    assert!(is_malformed(set(0, 0), Field::Schedule) && set(1, 0).is_ok());
    assert!(is_malformed(set(2, 1), Field::Schedule), "there is no tensor for it");
    assert!(changed(&file, 0, |header: &mut Header| header.history = [NONE; 2]).is_err());
    assert!(changed(&file, 0, |header: &mut Header| header.history[1] = header.history[0]).is_err());
    assert!(changed(&file, 0, |header: &mut Header| header.history[0] = header.sample).is_err());
    assert!(changed(&file, 0, |header: &mut Header| header.history[0] = header.prediction).is_err());

    let file = export(&options(Precision::I8));
    let model = Model::from_bytes(file.as_slice()).expect("a model");
    let at = |step: usize| model.schedule(0).expect("exists").rows as usize + step * STEP_BYTES;
    let set = |step: usize, k: usize| changed(&file, at(step), |step: &mut FixedStep| step.history[k] = 1 << 20);
    assert!(is_malformed(set(0, 0), Field::Schedule) && set(1, 0).is_ok() && is_malformed(set(2, 1), Field::Schedule));
}
