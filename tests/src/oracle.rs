//! Independent references for single operations: real numbers from the network's own weights, and integers straight
//! from the file's specification. Both unfold everything naively; neither shares code with the runtime's operations.

pub mod classifier;
pub mod filter;
mod weights;

use waft::Model;
use waft::format::{self, Activation, Bias, Element, Film, Gather, NONE, Tensor, Upsample, WeightLayout};
use waft_host::network::{Activate, GroupNorm, Network, Op, OpId, TensorId};

use self::weights::transformed_weight;

/// Real values of a tensor's bytes.
///
/// # Panics
/// If the bytes are not the tensor's.
pub fn reals(tensor: &Tensor, bytes: &[u8]) -> Vec<f64> {
    match tensor.element() {
        Element::F32 => bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Element::F16 => bytes.as_chunks::<2>().0.iter().map(|&b| half_to_f64(u16::from_le_bytes(b))).collect(),
        _ => {
            let (scale, zero) = (f64::from(tensor.scale), i64::from(tensor.zero_point));
            integers(tensor, bytes).into_iter().map(|q| (q - zero) as f64 * scale).collect()
        }
    }
}

/// IEEE 754 half precision, by its definition.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3FF);
    match (bits >> 10) & 31 {
        0 => sign * fraction * 2f64.powi(-24),
        31 => sign * f64::INFINITY,
        exponent => sign * (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(exponent) - 15),
    }
}

/// Integers of a tensor's bytes.
///
/// # Panics
/// If it is a float tensor.
pub fn integers(tensor: &Tensor, bytes: &[u8]) -> Vec<i64> {
    match tensor.element() {
        Element::I8 => bytes.iter().map(|&b| i64::from(b as i8)).collect(),
        Element::I16 => bytes.as_chunks().0.iter().map(|&b| i64::from(i16::from_le_bytes(b))).collect(),
        Element::I32 => bytes.as_chunks().0.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect(),
        Element::F16 | Element::F32 => panic!("not an integer tensor"),
    }
}

/// The result of one operation in real numbers, from the real values of what it reads. `None` for operations whose
/// operands have no uniform real scale.
pub fn real_result(network: &Network, id: OpId, read: &dyn Fn(TensorId) -> Vec<f64>) -> Option<Vec<f64>> {
    match &network.ops[id].1 {
        Op::Embed(_) => None,
        // Half of what a film adds is among the per-step biases.
        Op::Activate(Activate { film: Some(_), .. }) => None,
        Op::Activate(op) => {
            let map = read(op.norm);
            let channels = map.len() / 2;
            let mut values = read(op.source);
            for (i, value) in values.iter_mut().enumerate() {
                let c = i % channels;
                *value = activated(op.activation, *value * map[2 * c] + map[2 * c + 1]);
            }
            if let Some(residual) = op.residual {
                values.iter_mut().zip(read(residual)).for_each(|(value, kept)| *value += kept);
            }
            Some(values)
        }
        // The schedules have its factors and summands.
        Op::LayerNorm(op) if op.projection.is_some() => None,
        Op::LayerNorm(op) => {
            let channels = op.norm.gamma.len();
            let mut values = read(op.source);
            for pixel in values.chunks_exact_mut(channels) {
                let mean = if op.norm.is_centered { pixel.iter().sum::<f64>() / channels as f64 } else { 0.0 };
                let square = pixel.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / channels as f64;
                for (x, (&gamma, &beta)) in pixel.iter_mut().zip(op.norm.gamma.iter().zip(&op.norm.beta)) {
                    *x = (*x - mean) / (square + op.norm.eps).sqrt() * f64::from(gamma) + f64::from(beta);
                    *x = op.activation.map_or(*x, |activation| activated(activation, *x));
                }
            }
            if let Some(residual) = op.residual {
                values.iter_mut().zip(read(residual)).for_each(|(value, kept)| *value += kept);
            }
            Some(values)
        }
        Op::Observe(op) => {
            let values = read(op.source).into_iter().zip(&op.normalization);
            Some(values.map(|(x, [center, gain])| activated(Activation::Mish, (x - center) * gain)).collect())
        }
        Op::Linear(op) => Some(op.linear.apply(&read(op.source))),
        Op::GroupNorm(GroupNorm { sources, norm, projection, .. }) => {
            let joined = join(network, sources, read);
            let channels = norm.gamma.len();
            let per_group = channels / norm.groups;
            let pixels = joined.len() / channels;
            let affine: Vec<f64> = match projection {
                Some((_, Some(id))) => read(*id),
                Some((_, None)) => return None,
                None => norm.gamma.iter().chain(&norm.beta).map(|&value| f64::from(value)).collect(),
            };
            let mut map = vec![];
            for channel in 0..channels {
                let first = channel / per_group * per_group;
                let group: Vec<f64> =
                    (0..pixels).flat_map(|p| joined[p * channels + first..][..per_group].iter().copied()).collect();
                let mean = group.iter().sum::<f64>() / group.len() as f64;
                let variance = group.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / group.len() as f64;
                let a = affine[channel] / (variance + norm.eps).sqrt();
                map.extend([a, affine[channels + channel] - mean * a]);
            }
            Some(map)
        }
        Op::Attention(op) => {
            let channels = network.tensors[op.query].shape.c;
            let learned = op.memory.values.iter().map(|&value| f64::from(value));
            let key_value: Vec<f64> = learned.chain(read(op.key_value)).collect();
            Some(attention(&read(op.query), &key_value, channels, op.heads, f64::from(op.scale)))
        }
        Op::Classifier(op) => classifier::real_result(op, read),
        Op::Filter(op) => Some(filter::real_result(network, op, read)),
        Op::LinearAttention(op) => {
            let channels = network.tensors[op.query].shape.c;
            let learned = op.memory.values.iter().map(|&value| f64::from(value));
            let key_value: Vec<f64> = learned.chain(read(op.key_value)).collect();
            let mean = linear_attention(&read(op.query), &key_value, channels, op.heads, [1.0; 2]);
            Some(mean.into_iter().map(|mean| mean * f64::from(op.gain)).collect())
        }
        Op::Conv2d(conv) => {
            let shape = network.tensors[conv.sources[0]].shape;
            let mut x = join(network, &conv.sources, read);
            let channels = conv.conv.inputs;
            match conv.norm.map(read) {
                Some(map) => {
                    for (i, x) in x.iter_mut().enumerate() {
                        let c = i % channels;
                        *x = *x * map[2 * c] + map[2 * c + 1];
                        *x = conv.activation.map_or(*x, |activation| activated(activation, *x));
                    }
                }
                None => {
                    let (gain, offset) = conv.input_affine;
                    x.iter_mut().for_each(|x| *x = f64::from(gain) * *x + f64::from(offset));
                }
            }
            let output = conv.computed(&network.tensors);
            let bias: Vec<f64> = match &conv.projection {
                Some((_, Some(id))) => read(*id),
                Some((_, None)) => return None,
                None => conv.conv.bias.iter().map(|&b| f64::from(b)).collect(),
            };
            let residual = conv.residual.map(|(id, gain)| (read(id), f64::from(gain)));
            let [kh, kw] = conv.conv.kernel;
            let scale = if conv.upsample { 2 } else { 1 };
            let mut out = vec![];
            for y in 0..output.h {
                for x_out in 0..output.w {
                    for o in 0..output.c {
                        let mut sum = bias[o];
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let iy = (y * conv.conv.stride + ky) as isize - conv.conv.padding[0] as isize;
                                let ix = (x_out * conv.conv.stride + kx) as isize - conv.conv.padding[1] as isize;
                                if iy < 0 || ix < 0 || iy as usize >= scale * shape.h || ix as usize >= scale * shape.w
                                {
                                    continue;
                                }
                                let pixel = (iy as usize / scale * shape.w + ix as usize / scale) * channels;
                                let weights = ((o * kh + ky) * kw + kx) * channels;
                                for c in 0..channels {
                                    sum += x[pixel + c] * f64::from(conv.conv.weight[weights + c]);
                                }
                            }
                        }
                        if let Some((values, gain)) = &residual {
                            sum += gain * values[(y * output.w + x_out) * output.c + o];
                        }
                        out.push(sum);
                    }
                }
            }
            Some(out)
        }
    }
}

/// An activation by its definition.
pub fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * 0.5 * libm::erfc(-x / 2f64.sqrt()),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
    }
}

fn join(network: &Network, sources: &[TensorId], read: &dyn Fn(TensorId) -> Vec<f64>) -> Vec<f64> {
    let parts: Vec<(Vec<f64>, usize)> = sources.iter().map(|&id| (read(id), network.tensors[id].shape.c)).collect();
    let pixels = parts[0].0.len() / parts[0].1;
    (0..pixels).flat_map(|p| parts.iter().flat_map(move |(values, c)| values[p * c..(p + 1) * c].to_vec())).collect()
}

/// Softmax attention in real numbers; `key_value` holds keys, then values, of what is learned and of each pixel.
pub fn attention(query: &[f64], key_value: &[f64], channels: usize, heads: usize, scale: f64) -> Vec<f64> {
    let pixels = query.len() / channels;
    let keys = key_value.len() / (2 * channels);
    let head = channels / heads;
    let mut context = vec![0.0; query.len()];
    for h in 0..heads {
        for i in 0..pixels {
            let q = &query[i * channels + h * head..][..head];
            let scores: Vec<f64> = (0..keys)
                .map(|j| scale * (0..head).map(|d| q[d] * key_value[j * 2 * channels + h * head + d]).sum::<f64>())
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head {
                let sum: f64 =
                    (0..keys).map(|j| weights[j] * key_value[j * 2 * channels + channels + h * head + d]).sum();
                context[i * channels + h * head + d] = sum / total;
            }
        }
    }
    context
}

/// Linear attention in real numbers, of keys and values as above: the softmax of each channel of the keys over the keys, of each
/// head of a query over its channels, of keys and queries times the `scales`.
pub fn linear_attention(
    query: &[f64],
    key_value: &[f64],
    channels: usize,
    heads: usize,
    [key_scale, query_scale]: [f64; 2],
) -> Vec<f64> {
    let softmax = |values: Vec<f64>| -> Vec<f64> {
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = values.iter().map(|value| (value - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    };
    let head = channels / heads;
    let rows: Vec<&[f64]> = key_value.chunks_exact(2 * channels).collect();
    let mut result = vec![0.0; query.len()];
    for channel in 0..channels {
        let first = channel / head * head;
        let weights = softmax(rows.iter().map(|row| key_scale * row[channel]).collect());
        let context =
            |value: usize| -> f64 { rows.iter().zip(&weights).map(|(row, w)| w * row[channels + value]).sum() };
        let contexts: Vec<f64> = (first..first + head).map(context).collect();
        for (query, result) in query.chunks_exact(channels).zip(result.chunks_exact_mut(channels)) {
            let weight = softmax(query[first..first + head].iter().map(|q| query_scale * q).collect())[channel - first];
            result[first..first + head].iter_mut().zip(&contexts).for_each(|(to, context)| *to += weight * context);
        }
    }
    result
}

/// `value·multiplier·2^(shift−31)` rounded half up and saturated, over 128 bits.
pub fn requantize(value: i64, multiplier: i32, shift: i32) -> i64 {
    let k = 31 - shift.clamp(-31, 30);
    let product = i128::from(value) * i128::from(multiplier) * 2 + (1i128 << k);
    ((product >> (k + 1)) as i64).clamp(i32::MIN.into(), i32::MAX.into())
}

fn rounded(value: i128, shift: u32) -> i64 {
    if shift == 0 { value as i64 } else { ((value + (1i128 << (shift - 1))) >> shift) as i64 }
}

/// The integers that a convolution of an `i8` model must write, straight from the record: unfolded, without a ring, in
/// any order. `read` gives a tensor's integers before the operation. Activations are the runtime's own functions, which have
/// a test of their own.
///
/// # Panics
/// If the record does not fit the model.
pub fn integer_conv(
    model: &Model<'_>,
    op: &format::Conv2d,
    step_biases: &[u8],
    read: &dyn Fn(u16) -> Vec<i64>,
) -> Vec<i64> {
    let tensor = |id: u16| model.tensor(id).expect("exists");
    let word = |at: usize| i32::from_le_bytes(*model.bytes()[at..].first_chunk().expect("inside"));
    let output = op.computed(tensor(op.output));
    let ring = tensor(op.scratch);
    let first = tensor(op.sources[0]);
    let (rows, columns) = (usize::from(first.rows), usize::from(first.columns));
    let channels = usize::from(ring.channels);
    let limits: (i64, i64) = if ring.element() == Element::I8 { (-128, 127) } else { (-32768, 32767) };
    // Zero, multiplier and shift of the ring, and multiplier and shift of its accumulators.
    let step_scales: Option<[i32; 5]> = (op.weight_sums != 0).then(|| {
        let at = op.step_scales as usize;
        std::array::from_fn(|i| i32::from_le_bytes(*step_biases[at + 4 * i..].first_chunk().expect("inside")))
    });
    let [ring_zero, multiplier, shift] =
        step_scales.map_or([op.ring_zero, op.multiplier[0], op.shift[0]], |[zero, m, s, ..]| [zero, m, s]);
    let map = (op.norm != NONE).then(|| read(op.norm));

    let mut x = vec![0i64; rows * columns * channels];
    let mut start = 0;
    for (i, &id) in op.sources.iter().filter(|&&id| id != NONE).enumerate() {
        let width = usize::from(tensor(id).channels);
        for (at, value) in read(id).into_iter().enumerate() {
            let (pixel, channel) = (at / width, start + at % width);
            let q = match op.gather() {
                Gather::Raw if op.multiplier[i] == 0 => value,
                Gather::Raw => {
                    requantize(value - i64::from(op.source_zero[i]), op.multiplier[i], op.shift[i])
                        + i64::from(op.ring_zero)
                }
                _ => {
                    let map = map.as_ref().expect("affine gathers have a map");
                    let (a, b) = (map[2 * channel], map[2 * channel + 1]);
                    let y = rounded(i128::from(value) * i128::from(a), op.affine_shift) + b;
                    let y = y.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                    let value = match op.gather() {
                        Gather::Affine => i64::from(y.clamp(-(1 << 27), 1 << 27)) * 8,
                        Gather::AffineRelu => i64::from(waft::fixed::activate(Activation::Relu, y)),
                        Gather::AffineGelu => i64::from(waft::fixed::activate(Activation::Gelu, y)),
                        Gather::AffineMish => i64::from(waft::fixed::activate(Activation::Mish, y)),
                        _ => i64::from(waft::fixed::silu(y)),
                    };
                    requantize(value, multiplier, shift) + i64::from(ring_zero)
                }
            };
            x[pixel * channels + channel] = q.clamp(limits.0, limits.1);
        }
        start += width;
    }

    let (oh, ow, oc) = (usize::from(output.rows), usize::from(output.columns), usize::from(output.channels));
    let [kh, kw] = op.kernel.map(usize::from);
    let scale = if op.upsample() == Upsample::Nearest { 2 } else { 1 };
    let bias_tensor = (op.bias() == Bias::Tensor).then(|| read(op.bias_tensor));
    let residual = (op.residual != NONE).then(|| read(op.residual));
    let limits: (i64, i64) = match output.element() {
        Element::I8 => (-128, 127),
        Element::I16 => (-32768, 32767),
        _ => (i32::MIN.into(), i32::MAX.into()),
    };
    let taps = kh * kw * channels;
    let weight = |output: usize, tap: usize| -> i64 {
        let first = op.weights as usize;
        match op.layout() {
            WeightLayout::Groups4 => {}
            WeightLayout::Tiles4 | WeightLayout::Tiles2 => return transformed_weight(model, op, channels, output, tap),
            _ => return i64::from(model.bytes()[first + output * taps + tap] as i8),
        }
        // Four outputs side by side in two bytes, the first in the lowest bits.
        let byte = model.bytes()[first + (output / 4 * taps + tap) * 2 + output % 4 / 2];
        let nibble = if output.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        if nibble < 8 { i64::from(nibble) } else { i64::from(nibble) - 16 }
    };
    let mut out = vec![];
    for y in 0..oh {
        for xo in 0..ow {
            for o in 0..oc {
                let bias = match op.bias() {
                    Bias::Constant => i64::from(word(op.bias_at as usize + 4 * o)),
                    Bias::Step => {
                        let at = op.bias_at as usize + 4 * o;
                        i64::from(i32::from_le_bytes(*step_biases[at..].first_chunk().expect("inside")))
                    }
                    Bias::Tensor => bias_tensor.as_ref().expect("read above")[o],
                };
                let (mut sum, mut weights) = (if step_scales.is_some() { 0 } else { bias }, 0);
                for ky in 0..kh {
                    for kx in 0..kw {
                        let iy = (y * usize::from(op.stride) + ky) as isize - op.padding[0] as isize;
                        let ix = (xo * usize::from(op.stride) + kx) as isize - op.padding[1] as isize;
                        let inside =
                            iy >= 0 && ix >= 0 && (iy as usize) < scale * rows && (ix as usize) < scale * columns;
                        for c in 0..channels {
                            let weight = weight(o, (ky * kw + kx) * channels + c);
                            let value = if inside {
                                x[(iy as usize / scale * columns + ix as usize / scale) * channels + c]
                            } else {
                                i64::from(ring_zero)
                            };
                            sum += weight * value;
                            weights += weight;
                        }
                    }
                }
                assert!(i32::try_from(sum).is_ok(), "the exporter promises that no accumulator leaves 32 bits: {sum}");
                if let Some([zero, .., m, s]) = step_scales {
                    sum = requantize(sum - i64::from(zero) * weights, m, s) + bias;
                    assert!(i32::try_from(sum).is_ok(), "nor does it with the bias");
                }
                let (m, s) = (word(op.requant as usize + 8 * o), word(op.requant as usize + 8 * o + 4));
                let value = match &residual {
                    None => requantize(sum, m, s),
                    Some(values) => {
                        let kept = values[(y * ow + xo) * oc + o] - i64::from(op.residual_zero);
                        let kept = requantize(kept, op.residual_multiplier, op.residual_shift);
                        rounded(i128::from(requantize(sum, m, s + 8) + kept), 8)
                    }
                };
                out.push((value + i64::from(op.output_zero)).clamp(limits.0, limits.1));
            }
        }
    }
    out
}

/// The integers that an activation of an `i8` model must write, straight from the record. Activations are the runtime's own
/// functions, which have a test of their own.
///
/// # Panics
/// If the record does not fit the model.
pub fn integer_activation(
    model: &Model<'_>,
    op: &format::Activate,
    step_biases: &[u8],
    read: &dyn Fn(u16) -> Vec<i64>,
) -> Vec<i64> {
    let clamp = |value: i64| value.clamp(i32::MIN.into(), i32::MAX.into());
    let output = model.tensor(op.output).expect("exists");
    let channels = usize::from(output.channels);
    let limits: (i64, i64) = if output.element() == Element::I8 { (-128, 127) } else { (-32768, 32767) };
    let map = read(op.norm);
    let observed = (op.observed != NONE).then(|| read(op.observed));
    let film = |element: usize| {
        let at = op.film_at as usize + 4 * element;
        let step = i32::from_le_bytes(*step_biases[at..].first_chunk().expect("inside"));
        clamp(i64::from(step) + observed.as_ref().map_or(0, |observed| observed[element]))
    };
    let residual = (op.residual != NONE).then(|| read(op.residual));
    let values = read(op.source).into_iter().enumerate().map(|(i, value)| {
        let c = i % channels;
        let y = clamp(rounded(i128::from(value) * i128::from(map[2 * c]), op.affine_shift) + map[2 * c + 1]);
        let y = i64::from(waft::fixed::activate(op.activation(), y as i32));
        // 15 fractional bits; factors have 20.
        let y = match op.film() {
            Film::None => y,
            Film::Shift => clamp(y + film(c)),
            Film::ScaleShift => clamp(rounded(i128::from(y) * i128::from(film(c)), 20) + film(channels + c)),
        };
        let y = requantize(y, op.multiplier, op.shift);
        let y = match &residual {
            None => y,
            Some(residual) => {
                let kept = residual[i] - i64::from(op.residual_zero);
                rounded(i128::from(y + requantize(kept, op.residual_multiplier, op.residual_shift)), 8)
            }
        };
        (y + i64::from(op.output_zero)).clamp(limits.0, limits.1)
    });
    values.collect()
}

/// The integers that a normalization over channels of an `i8` model should write, before they are rounded: real numbers from
/// the record, the integers that it reads and real statistics.
///
/// # Panics
/// If the record does not fit the model.
pub fn layer_norm_of_integers(
    model: &Model<'_>,
    op: &format::LayerNorm,
    step_biases: &[u8],
    read: &dyn Fn(u16) -> Vec<i64>,
) -> Vec<f64> {
    let output = model.tensor(op.output).expect("exists");
    let channels = usize::from(output.channels);
    let affine = |at: u32, channel: usize, bits: i32| {
        let bytes = if op.affine() == format::Affine::Step { step_biases } else { model.bytes() };
        let word = i32::from_le_bytes(*bytes[at as usize + 4 * channel..].first_chunk().expect("inside"));
        f64::from(word) * 2f64.powi(-bits)
    };
    let factor = |multiplier: i32, shift: i32| f64::from(multiplier) * 2f64.powi(shift - 31);
    let extra = if op.residual == NONE { 1.0 } else { 256.0 };
    let residual = (op.residual != NONE).then(|| read(op.residual));
    let mut found = vec![];
    for pixel in read(op.source).chunks_exact(channels) {
        let values: Vec<f64> = pixel.iter().map(|&q| (q - i64::from(op.zero)) as f64).collect();
        let mean = match op.center() {
            format::Center::Zero => 0.0,
            format::Center::Mean => values.iter().sum::<f64>() / channels as f64,
        };
        let square = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / channels as f64;
        let deviation = (square + op.epsilon_q16 as f64 / 65_536.0).sqrt();
        for (channel, x) in values.into_iter().enumerate() {
            let y = (x - mean) / deviation * affine(op.gamma, channel, 20) + affine(op.beta, channel, 12);
            let y = op.gather().activation().map_or(y, |activation| activated(activation, y));
            // From 15 fractional bits.
            let mut y = y * 32_768.0 * factor(op.multiplier, op.shift) / extra;
            if let Some(residual) = &residual {
                let kept = (residual[found.len()] - i64::from(op.residual_zero)) as f64;
                y += kept * factor(op.residual_multiplier, op.residual_shift) / extra;
            }
            found.push(y + f64::from(op.output_zero));
        }
    }
    found
}
