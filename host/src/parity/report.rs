//! The comparison as a page: a bar for each operation and case, on a logarithmic scale.

use std::fmt::Write;

use super::{ImageParity, OpParity};

const HEAD: &str = "<!doctype html><meta charset=utf-8><style>body{font:15px system-ui;margin:2em;max-width:80em}\
    td,th{padding:.2em .7em;text-align:right}td:first-child{text-align:left}.bad{background:#fdd}</style>";

/// Errors of 10⁻⁹ of the largest result and below are drawn as nothing, of 1 and above as a whole bar.
const DECADES: f64 = 9.0;
const BAR_WIDTH: f64 = 12.0;
const BAR_HEIGHT: f64 = 36.0;

/// One HTML page that needs nothing else.
pub fn html(model: &str, device: &str, ops: &[OpParity], pictures: &[ImageParity]) -> String {
    let mut page = String::from(HEAD);
    let [model, device] = [model, device].map(escape);
    let _ = write!(
        page,
        "<title>{model} on {device}</title><h1>{model}: {device} against the runtime</h1><table><tr><th>pictures<th>number<th>different<th>largest error of a byte"
    );
    for ImageParity { what, images, different, max_byte_err, .. } in pictures {
        let _ = write!(page, "<tr><td>{what}<td>{images}<td>{different}<td>{max_byte_err}");
    }
    let _ = write!(
        page,
        "</table><p>Bars: largest error over largest result, from 10⁻⁹ (nothing) to 1 (full), one for each case; hover for its \
         name.</p><table><tr><th>operation<th>elements<th>mismatches<th>largest error<th>cases<th>first mismatch"
    );
    for op in ops {
        let class = if op.mismatches > 0 { " class=bad" } else { "" };
        let _ = write!(
            page,
            "<tr{class}><td>{}<td>{}<td>{}<td>{:.3e}<td>",
            escape(&op.op),
            op.elements,
            op.mismatches,
            op.max_abs_err
        );
        bars(&mut page, &op.case_errors);
        page.push_str("<td>");
        if let Some(first) = &op.first {
            let _ = write!(
                page,
                "{}: tensor {}, element {}: {} expected, {} found",
                escape(&first.case),
                first.tensor,
                first.index,
                first.expected,
                first.found
            );
        }
    }
    page.push_str("</table>");
    page
}

fn bars(page: &mut String, errors: &[(String, f64)]) {
    let width = BAR_WIDTH * errors.len() as f64;
    let _ =
        write!(page, "<svg width={width} height={BAR_HEIGHT}><path d=\"M0 {BAR_HEIGHT}h{width}\" stroke=\"#999\"/>");
    for (place, (case, error)) in errors.iter().enumerate() {
        let share = if *error > 0.0 { ((error.log10() + DECADES) / DECADES).clamp(0.0, 1.0) } else { 0.0 };
        let _ = write!(
            page,
            "<g><title>{}: {error:.2e}</title><rect x={} y={} width={} height={} fill=\"#46c\"/><rect x={} width={BAR_WIDTH} \
             height={BAR_HEIGHT} fill=\"transparent\"/></g>",
            escape(case),
            place as f64 * BAR_WIDTH + 1.0,
            BAR_HEIGHT * (1.0 - share),
            BAR_WIDTH - 2.0,
            BAR_HEIGHT * share,
            place as f64 * BAR_WIDTH,
        );
    }
    page.push_str("</svg>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
