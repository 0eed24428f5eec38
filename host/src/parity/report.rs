//! The comparison as a page: a bar for each operation and case, on a logarithmic scale.

use maud::{DOCTYPE, Markup, html};

use super::{ImageParity, OpParity};
use crate::text::visible;

const STYLE: &str = "body{font:15px system-ui;margin:2em;max-width:80em}td,th{padding:.2em .7em;text-align:right}\
    td:first-child{text-align:left}.bad{background:#fdd}";

/// Errors of 10⁻⁹ of the largest result and below are drawn as nothing, of 1 and above as a whole bar.
const DECADES: f64 = 9.0;
const BAR_WIDTH: f64 = 12.0;
const BAR_HEIGHT: f64 = 36.0;

/// One HTML page that needs nothing else.
pub fn html(model: &str, device: &str, ops: &[OpParity], pictures: &[ImageParity]) -> String {
    let [model, device] = [model, device].map(visible);
    let page = html! {
        (DOCTYPE)
        html {
            head { meta charset="utf-8"; style { (STYLE) } title { (model) " on " (device) } }
            body {
                h1 { (model) ": " (device) " against the runtime" }
                table {
                    tr { th { "pictures" } th { "number" } th { "different" } th { "largest error of a byte" } }
                    @for ImageParity { what, images, different, max_byte_err, .. } in pictures {
                        tr { td { (visible(what)) } td { (images) } td { (different) } td { (max_byte_err) } }
                    }
                }
                p {
                    "Bars: largest error over largest result, from 10⁻⁹ (nothing) to 1 (full), one for each case; hover for \
                     its name."
                }
                table {
                    tr {
                        th { "operation" } th { "elements" } th { "mismatches" } th { "largest error" } th { "cases" }
                        th { "first mismatch" }
                    }
                    @for op in ops { (row(op)) }
                }
            }
        }
    };
    page.into_string()
}

fn row(op: &OpParity) -> Markup {
    html! {
        tr.bad[op.mismatches > 0] {
            td { (visible(&op.op)) }
            td { (op.elements) }
            td { (op.mismatches) }
            td { (format!("{:.3e}", op.max_abs_err)) }
            td { (bars(&op.case_errors)) }
            td {
                @if let Some(first) = &op.first {
                    (visible(&first.case)) ": tensor " (first.tensor) ", element " (first.index) ": " (first.expected)
                    " expected, " (first.found) " found"
                }
            }
        }
    }
}

fn bars(errors: &[(String, f64)]) -> Markup {
    let width = BAR_WIDTH * errors.len() as f64;
    html! {
        svg width=(width) height=(BAR_HEIGHT) {
            path d=(format!("M0 {BAR_HEIGHT}h{width}")) stroke="#999" {}
            @for (place, (case, error)) in errors.iter().enumerate() {
                @let share = if *error > 0.0 { ((error.log10() + DECADES) / DECADES).clamp(0.0, 1.0) } else { 0.0 };
                @let left = place as f64 * BAR_WIDTH;
                g {
                    title { (visible(case)) ": " (format!("{error:.2e}")) }
                    rect x=(left + 1.0) y=(BAR_HEIGHT * (1.0 - share)) width=(BAR_WIDTH - 2.0)
                        height=(BAR_HEIGHT * share) fill="#46c" {}
                    rect x=(left) width=(BAR_WIDTH) height=(BAR_HEIGHT) fill="transparent" {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let name = "<img src=x onerror=alert(1)>\u{1b}[2J\"&";
        let op = OpParity {
            op: name.into(),
            elements: 1,
            mismatches: 1,
            max_abs_err: 0.5,
            case_errors: vec![(name.into(), 0.5)],
            first: None,
        };
        let page = html(name, name, &[op], &[]);
        assert!(!page.contains("<img") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(page.matches("&lt;img src=x onerror=alert(1)&gt;\\u{1b}[2J&quot;&amp;").count(), 6);
    }
}
