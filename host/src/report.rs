//! What the plan looks like: the memory map as SVG, time across, addresses up.

use std::fmt::Write;

use waft::arithmetic::activate::OBSERVED_BITS;
use waft::fixed::SAMPLE_BITS;
use waft::format::{Op, Precision, Tensor};
use waft::{Model, Role};

use crate::quantize;
use crate::text::visible;

/// A tensor of the plan and what it is for.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Its index.
    pub id: u16,
    /// Its place and life.
    pub tensor: Tensor,
    /// What it is for.
    pub role: Role,
}

/// The tensors of a model with their roles.
pub fn memory(model: &Model<'_>) -> Vec<Memory> {
    (0..model.tensors())
        .filter_map(|id| model.tensor(id).map(|tensor| Memory { id, tensor, role: model.role(id) }))
        .collect()
}

/// How a policy's observation enters its network: a center and a gain for each element. Empty for other models.
pub fn normalization(model: &Model<'_>) -> Vec<[f64; 2]> {
    let observe = (0..model.ops()).find_map(|index| match model.op(index) {
        Some(Op::Observe(op)) => Some(op),
        _ => None,
    });
    let (Some(op), Some(len)) = (observe, model.observation_len()) else { return vec![] };
    let words = |at: u32, each: usize| {
        let bytes = model.bytes().get(at as usize..at as usize + 4 * each * len).unwrap_or_default();
        bytes.as_chunks::<4>().0
    };
    if model.precision() == Precision::I8 {
        let word = |bytes: &[u8; 4]| i32::from_le_bytes(*bytes);
        let unit = 2f64.powi(-(SAMPLE_BITS as i32));
        let bits = SAMPLE_BITS - OBSERVED_BITS;
        let gains = words(op.gains, 2).as_chunks::<2>().0.iter();
        let gains = gains.map(|[m, s]| quantize::real((word(m), word(s))) * 2f64.powi(bits as i32));
        return words(op.centers, 1).iter().zip(gains).map(|(at, gain)| [f64::from(word(at)) * unit, gain]).collect();
    }
    let real = |bytes: &[u8; 4]| f64::from(f32::from_le_bytes(*bytes));
    words(op.centers, 1).iter().zip(words(op.gains, 1)).map(|(center, gain)| [real(center), real(gain)]).collect()
}

const fn colour(role: Role) -> &'static str {
    match role {
        Role::Sample => "#4477aa",
        Role::Condition => "#882255",
        Role::Prediction => "#66ccee",
        Role::History => "#004488",
        Role::Activation => "#228833",
        Role::Ring => "#ccbb44",
        Role::Patches => "#999933",
        Role::Window => "#dd7711",
        Role::Map => "#ee6677",
        Role::Scores => "#aa3377",
        Role::Conditioning => "#bbbbbb",
        Role::Unused => "#000",
    }
}

/// The memory map.
pub fn memory_map(model: &Model<'_>, memory: &[Memory]) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 50.0;
    const HEIGHT: f64 = 520.0;
    let ops = f64::from(model.ops()) + 1.0;
    let column = (1200.0 / ops).clamp(4.0, 40.0);
    let width = ops * column;
    let arena = (model.arena_bytes() as f64).max(1.0);
    let y = |bytes: f64| TOP + HEIGHT * (1.0 - bytes / arena);
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("strings grow");
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        LEFT + width + 20.0,
        TOP + HEIGHT + 60.0
    ));
    put(format_args!(
        "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}: arena {} bytes, lower bound {}</text>\n",
        escape(model.name()),
        model.arena_bytes(),
        model.header().arena_lower_bound
    ));
    let used = Role::ALL.into_iter().filter(|&role| memory.iter().any(|entry| entry.role == role));
    for (index, role) in used.enumerate() {
        let x = LEFT + 95.0 * index as f64;
        let fill = colour(role);
        put(format_args!("<rect x=\"{x}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{fill}\"/>"));
        put(format_args!("<text x=\"{}\" y=\"37\">{}</text>\n", x + 14.0, role.name()));
    }
    for entry in memory {
        let t = &entry.tensor;
        let fill = colour(entry.role);
        let (start, end) = (f64::from(t.first), f64::from(t.last) + 1.0);
        let top = y(f64::from(t.offset) + f64::from(t.bytes));
        put(format_args!(
            "<rect x=\"{:.1}\" y=\"{top:.2}\" width=\"{:.1}\" height=\"{:.2}\" fill=\"{fill}\" fill-opacity=\"0.75\" \
             stroke=\"#fff\" stroke-width=\"0.5\"><title>#{} {} {}×{}×{} {:?}, {} bytes at {}, operations {} to {}</title></rect>\n",
            LEFT + start * column,
            (end - start) * column,
            HEIGHT * f64::from(t.bytes) / arena,
            entry.id,
            entry.role.name(),
            t.rows,
            t.columns,
            t.channels,
            t.element(),
            t.bytes,
            t.offset,
            t.first,
            t.last
        ));
    }
    for quarter in 0..=4 {
        let bytes = arena * f64::from(quarter) / 4.0;
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{bytes:.0}</text>\n",
            LEFT - 6.0,
            y(bytes) + 4.0
        ));
    }
    put(format_args!(
        "<text x=\"{LEFT}\" y=\"{}\">operation 0 to {}, then the sampler</text>\n</svg>\n",
        TOP + HEIGHT + 20.0,
        model.ops()
    ));
    svg
}

/// Text as it may stand in SVG.
pub fn escape(text: &str) -> String {
    maud::html! { (visible(text)) }.into_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_text_in_the_svg() {
        let escaped = super::escape("</text><script>\u{1b}[2J&\u{0}");
        assert_eq!(escaped, "&lt;/text&gt;&lt;script&gt;\\u{1b}[2J&amp;\\u{0}");
    }
}
