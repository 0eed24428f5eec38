//! Bars of stacked parts as SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use waft_host::report::escape;

/// One bar.
pub(super) struct Bar {
    pub(super) name: String,
    /// Parts by their name, which has one colour in all bars.
    pub(super) parts: BTreeMap<String, u64>,
}

/// Paul Tol's bright and muted schemes, which colour-blind readers can tell apart.
const COLOURS: [&str; 10] =
    ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#332288", "#ddcc77", "#44aa99"];

/// All bars below each other, to the scale of the longest.
pub(super) fn svg(title: &str, bars: &[Bar]) -> String {
    const NAMES: f64 = 190.0;
    const WIDTH: f64 = 640.0;
    const ROW: f64 = 24.0;
    let mut kinds: Vec<&String> = bars.iter().flat_map(|bar| bar.parts.keys()).collect();
    kinds.sort();
    kinds.dedup();
    let colour = |kind: &String| kinds.binary_search(&kind).map_or(COLOURS[0], |place| COLOURS[place % COLOURS.len()]);
    let longest = bars.iter().map(|bar| bar.parts.values().sum::<u64>()).max().unwrap_or(1).max(1) as f64;
    let top = 56.0 + 18.0 * (kinds.len() as f64 / 4.0).ceil();
    let height = top + ROW * bars.len() as f64 + 10.0;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("strings grow");
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"10\" y=\"24\" \
         font-size=\"15\">{}</text>\n",
        escape(title)
    ));
    for (place, kind) in kinds.iter().enumerate() {
        let (x, y) = (10.0 + 235.0 * (place % 4) as f64, 46.0 + 18.0 * (place / 4) as f64);
        put(format_args!(
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{:.0}\" y=\"{y:.0}\">{}</text>\n",
            y - 10.0,
            colour(kind),
            x + 18.0,
            escape(kind)
        ));
    }
    for (row, bar) in bars.iter().enumerate() {
        let y = top + ROW * row as f64;
        put(format_args!("<text x=\"10\" y=\"{:.0}\">{}</text>\n", y + 14.0, escape(&bar.name)));
        let mut x = NAMES;
        for (kind, &part) in &bar.parts {
            let width = WIDTH * part as f64 / longest;
            put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{}\"><title>{}: {part}</title></rect>\n",
                ROW - 6.0,
                colour(kind),
                escape(kind)
            ));
            x += width;
        }
        let total = bar.parts.values().sum::<u64>() as f64 / 1e6;
        put(format_args!("<text x=\"{:.1}\" y=\"{:.0}\">{total:.2} M</text>\n", x + 6.0, y + 14.0));
    }
    svg.push_str("</svg>\n");
    svg
}
