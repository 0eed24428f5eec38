//! Bars of milliseconds.

use std::fmt::Write;

/// A bar for each name, the shortest the best.
pub(super) fn svg(title: &str, bars: &[(&str, f64)]) -> String {
    const WIDTH: f64 = 420.0;
    const ROW: usize = 24;
    let longest = bars.iter().fold(f64::MIN_POSITIVE, |longest, &(_, value)| longest.max(value));
    let height = 60 + ROW * bars.len();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"24\" font-weight=\"bold\">{}</text>\n<text x=\"16\" y=\"42\" fill=\"#555\">milliseconds a network \
         call, less is better</text>\n",
        escaped(title)
    );
    for (row, &(name, value)) in bars.iter().enumerate() {
        let y = 54 + ROW * row;
        let color = if name.starts_with("waft") { "#1f77b4" } else { "#bbbbbb" };
        let width = (WIDTH * value / longest).max(1.0);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "<text x=\"200\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"208\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"18\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{}\">{value:.3}</text>",
            y + 14,
            escaped(name),
            214.0 + width,
            y + 14,
        );
    }
    text + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn bars_are_in_proportion() {
        let svg = super::svg("a <b>", &[("waft i8", 1.0), ("peer", 4.0)]);
        assert!(svg.contains("a &lt;b&gt;"));
        assert!(svg.contains("width=\"105.0\"") && svg.contains("width=\"420.0\""));
    }
}
