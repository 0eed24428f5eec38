//! What the page shows of a model, in JSON.

use serde_json::json;
use waft::Model;
use waft::format::Precision;

use crate::cost::chips::{self, CHIPS};

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

/// What a picture costs on each chip by the list of so many steps, `guided` of them with guidance.
pub(crate) fn estimate(model: &Model<'_>, steps: u32, guided: u32) -> Result<String, String> {
    let list = (0..model.schedules()).filter_map(|index| model.schedule(index)).find(|list| list.steps == steps);
    let list = list.ok_or_else(|| format!("the model has no list of {steps} steps"))?;
    let costs: Vec<_> = CHIPS.iter().map(|chip| chips::cost(chip, model, Some(&list), guided)).collect();
    serde_json::to_string(&costs).map_err(|error| error.to_string())
}
