use super::{Check, File, check, ensure, is_zero, require};
use crate::format::{ACTION_BYTES, ALIGN, FixedAction, FloatAction, NONE, Tensor};

pub(super) const fn validate(file: File<'_>) -> Check {
    let header = file.header;
    let mut id = 0;
    while id < header.tensors {
        let t = require!(file.tensor(id), Tensor, id);
        ensure!(t.has_known_codes() && t.reserved == 0 && is_zero(t.reserved_end), Tensor, id);
        ensure!(t.rows > 0 && t.columns > 0 && t.channels > 0, Tensor, id);
        let len = t.rows as u64 * t.columns as u64 * t.channels as u64;
        ensure!(len < 1 << 28 && t.bytes as u64 == len * t.element().bytes() as u64, Tensor, id);
        ensure!(t.offset.is_multiple_of(ALIGN as u32), Tensor, id);
        ensure!(t.offset as u64 + t.bytes as u64 <= header.arena_bytes as u64, Tensor, id);
        ensure!(t.first <= t.last && t.last <= header.ops, Lifetime, id);
        check!(is_written(file, id, &t));
        id += 1;
    }
    let wide = file.wide();
    let sample = require!(file.tensor(header.sample), Header, 0);
    let prediction = require!(file.tensor(header.prediction), Header, 0);
    ensure!(sample.element().is(wide) && prediction.element().is(wide), Header, 0);
    ensure!(sample.rows == prediction.rows && sample.columns == prediction.columns, Header, 0);
    // The sample lives through every pass, the prediction until the sampler has read it.
    ensure!(sample.first == 0 && sample.last == header.ops && prediction.last == header.ops, Lifetime, header.sample);
    ensure!(header.sample != header.prediction, Header, 0);
    if header.condition != 0 {
        let condition = require!(file.tensor(header.condition), Header, 0);
        ensure!(condition.element().is(wide) && header.condition != header.prediction, Header, 0);
        ensure!(header.condition != header.sample && !file.is_kept(header.condition), Header, 0);
        ensure!(condition.first == 0 && condition.last == header.ops, Lifetime, header.condition);
    }
    if header.observation != 0 {
        let observation = require!(file.tensor(header.observation), Header, 0);
        ensure!(observation.element().is(wide) && header.observation != header.prediction, Header, 0);
        ensure!(header.observation != header.sample && header.observation != header.condition, Header, 0);
        ensure!(!file.is_kept(header.observation), Header, 0);
        ensure!(observation.first == 0 && observation.last == header.ops, Lifetime, header.observation);
    }
    if header.variance != 0 {
        // An operation writes it, and the sampler reads it as it reads the prediction.
        let variance = require!(file.tensor(header.variance), Header, 0);
        ensure!(variance.element().is(wide) && variance.has_shape_of(&sample), Header, 0);
        ensure!(!file.is_given(header.variance) && !file.is_kept(header.variance), Header, 0);
        ensure!(header.variance != header.prediction, Header, 0);
        ensure!(variance.last == header.ops, Lifetime, header.variance);
    }
    if header.gradient != 0 {
        // The same; with it, the prediction is kept as it was without, and there is a class to go to.
        let gradient = require!(file.tensor(header.gradient), Header, 0);
        ensure!(gradient.element().is(wide) && gradient.has_shape_of(&sample), Header, 0);
        ensure!(!file.is_given(header.gradient) && !file.is_kept(header.gradient), Header, 0);
        ensure!(header.gradient != header.prediction && header.gradient != header.variance, Header, 0);
        ensure!(gradient.last == header.ops, Lifetime, header.gradient);
        ensure!(prediction.has_shape_of(&sample) && header.unconditional != NONE, Header, 0);
        ensure!(header.classes > 0 && header.unconditional_class == NONE, Header, 0);
    }
    check!(validate_actions(file, sample.channels));
    if header.unconditional != NONE {
        ensure!(header.unconditional_class != NONE || header.gradient != 0, Header, 0);
        check!(keeps(file, header.unconditional, &prediction));
    }
    // The older history is of no use without the newer one.
    ensure!(header.history[0] != NONE || header.history[1] == NONE, Header, 0);
    let mut i = 0;
    while i < header.history.len() {
        let id = header.history[i];
        if id != NONE {
            check!(keeps(file, id, &sample));
            ensure!(id != header.unconditional && (i == 0 || id != header.history[0]), Header, 0);
        }
        i += 1;
    }
    Ok(())
}

/// The sample's channels become actions by records that lie in the file, and by finite numbers.
const fn validate_actions(file: File<'_>, channels: u16) -> Check {
    let at = file.header.actions;
    if at == 0 {
        return Ok(());
    }
    ensure!(file.holds(at, channels as u64 * ACTION_BYTES as u64), Offset, 0);
    let mut channel = 0;
    while channel < channels {
        let at = at as usize + channel as usize * ACTION_BYTES;
        if file.is_i8() {
            ensure!(is_zero(FixedAction::read(file.bytes, at).reserved), Header, 0);
        } else {
            let action = FloatAction::read(file.bytes, at);
            ensure!(action.gain.is_finite() && action.offset.is_finite() && is_zero(action.reserved), Header, 0);
        }
        channel += 1;
    }
    Ok(())
}

/// The tensor's life begins with the operation that writes it, so that nobody reads what the arena held before; what lies
/// between network calls is written by the sampler.
const fn is_written(file: File<'_>, id: u16, t: &Tensor) -> Check {
    if file.is_given(id) || file.is_kept(id) {
        return Ok(());
    }
    // What is computed once a run is there for the steps that follow.
    let once = file.header.once;
    ensure!(t.first >= once || t.last < once || t.last == file.header.ops, Lifetime, id);
    let op = require!(file.header.op(file.bytes, t.first), Lifetime, id);
    ensure!(op.output() == id || op.is_scratch(id), Lifetime, id);
    Ok(())
}

/// A tensor of the sampler, of the shape of `like`, that lives through every network call.
const fn keeps(file: File<'_>, id: u16, like: &Tensor) -> Check {
    let kept = require!(file.tensor(id), Header, 0);
    ensure!(kept.element().is(file.wide()) && kept.has_shape_of(like), Header, 0);
    ensure!(kept.first == 0 && kept.last == file.header.ops, Lifetime, id);
    ensure!(id != file.header.sample && id != file.header.prediction, Header, 0);
    Ok(())
}
