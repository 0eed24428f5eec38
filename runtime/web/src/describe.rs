//! What the page shows of a model, in JSON.

use serde_json::json;
use waft::Model;
use waft::format::Precision;

/// The model's description.
pub(crate) fn describe(model: &Model<'_>) -> String {
    let header = model.header();
    let precision = match model.precision() {
        Precision::I8 => "i8",
        Precision::F16 => "f16",
        Precision::F32 => "f32",
    };
    let steps: Vec<u32> =
        (0..model.schedules()).filter_map(|index| model.schedule(index)).map(|list| list.steps).collect();
    let tensors: Vec<_> = (0..model.tensors())
        .filter_map(|id| Some((id, model.tensor(id)?)))
        .map(|(id, t)| {
            json!({
                "role": model.role(id).name(), "offset": t.offset, "bytes": t.bytes, "first": t.first, "last": t.last,
                "shape": [t.rows, t.columns, t.channels],
            })
        })
        .collect();
    json!({
        "name": model.name(),
        "provenance": model.provenance(),
        "precision": precision,
        "file_bytes": header.file_bytes,
        "arena_bytes": header.arena_bytes,
        "macs": header.macs,
        "parameters": header.params,
        "shape": model.image_shape(),
        "classes": model.classes(),
        "unconditional_class": model.unconditional_class(),
        "guidance": model.has_guidance(),
        "steps": steps,
        "operations": model.ops(),
        "tensors": tensors,
    })
    .to_string()
}
