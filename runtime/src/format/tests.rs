//! Records as bytes, and the tables of the documentation.

extern crate std;

use std::fmt::Write as _;
use std::string::String;
use std::vec::Vec;

use bytemuck::Zeroable;

use super::*;

/// Bytes without a pattern, from the crate's own generator.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let words = (0..len as u32).flat_map(|i| crate::noise::philox([seed, 0], [i, 0, 0, 0]));
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

/// What was written is read, wherever the record lies, and each field lies where the table says.
fn round_trip<R: Record>(read: impl Fn(&[u8], usize) -> R) {
    for seed in 0..if cfg!(miri) { 2 } else { 50 } {
        let written = noise(seed, R::BYTES);
        let mut file = std::vec![0xA5; 7 + R::BYTES + 9];
        file[7..7 + R::BYTES].copy_from_slice(&written);
        let record = read(&file, 7);
        assert_eq!(bytemuck::bytes_of(&record), written, "{}", R::NAME);
    }
    let beyond = read(&[0xFF; 3], 0);
    assert!(bytemuck::bytes_of(&beyond).iter().all(|&byte| byte == 0), "{} outside the file", R::NAME);
    for pair in R::FIELDS.windows(2) {
        assert!(pair[0].at < pair[1].at, "{}: {} before {}", R::NAME, pair[0].name, pair[1].name);
    }
}

#[test]
fn records_are_read_as_written() {
    round_trip(Header::read);
    round_trip(Tensor::read);
    round_trip(Conv2d::read);
    round_trip(GroupNorm::read);
    round_trip(Attention::read);
    round_trip(Embed::read);
    round_trip(Linear::read);
    round_trip(Activate::read);
    round_trip(Observe::read);
    round_trip(LayerNorm::read);
    round_trip(LinearAttention::read);
    round_trip(Classifier::read);
    round_trip(Filter::read);
    round_trip(FixedAction::read);
    round_trip(FloatAction::read);
    round_trip(Schedule::read);
    round_trip(FixedStep::read);
    round_trip(FloatStep::read);
    round_trip(Level::read);
    round_trip(Threshold::read);
    round_trip(Variance::read);
    round_trip(StepScales::read);
}

#[test]
fn operations_are_read_by_their_kind() {
    for &kind in OpKind::ALL {
        let mut bytes = noise(1, OP_BYTES);
        bytes[0] = kind.code();
        let op = Op::read(&bytes, 0).expect("a kind");
        assert_eq!(op.bytes(), bytes, "{kind:?}");
    }
    assert_eq!(Op::read(&[OpKind::ALL.len() as u8; OP_BYTES], 0), None);
}

/// Records of a kind follow each other from where the header says, as many as it says.
#[test]
fn records_follow_each_other() {
    let mut file = noise(2, 1000);
    for index in 0..3 {
        file[176 + index * OP_BYTES] = index as u8;
    }
    let counts = Header { tensors: 3, ops: 3, schedules: 3, ..Header::zeroed() };
    let header = Header { tensors_at: 16, ops_at: 176, schedules_at: 544, ..counts };
    for index in 0..3 {
        let at = usize::from(index);
        assert_eq!(header.tensor(&file, index), Some(Tensor::read(&file, 16 + at * Tensor::BYTES)));
        assert_eq!(header.op(&file, index), Op::read(&file, 176 + at * OP_BYTES));
        assert_eq!(header.schedule(&file, index), Some(Schedule::read(&file, 544 + at * Schedule::BYTES)));
    }
    assert!(header.tensor(&file, 3).is_none() && header.op(&file, 3).is_none() && header.schedule(&file, 3).is_none());
}

#[test]
fn codes_stand_for_their_values_only() {
    macro_rules! check {
        ($($kind:ident)*) => {
            $( for code in 0..=u8::MAX {
                let value = $kind::from_code(code);
                assert_eq!(value.is_some(), usize::from(code) < $kind::ALL.len());
                assert!(value.is_none_or(|value| value.code() == code));
            } )*
        };
    }
    check!(Precision Output Element OpKind Activation Gather Upsample Shuffle Bias Affine Film Center Pass WeightLayout);
}

/// They are words of the command line.
#[test]
fn precisions_have_the_names_of_their_types() {
    assert_eq!([Precision::I8, Precision::F16, Precision::F32].map(Precision::name), ["i8", "f16", "f32"]);
}

/// The tables of the documentation, from the records themselves.
fn tables() -> String {
    fn table<R: Record>(text: &mut String, title: &str) {
        writeln!(text, "\n# {title}, {} bytes\n| at | type | field | what it holds |\n|---:|---|---|---|", R::BYTES)
            .unwrap();
        for field in R::FIELDS {
            // Links of a field are relative to its file.
            let what = field.text.trim().replace("(super::", "(");
            writeln!(text, "| {} | `{}` | `{}` | {what} |", field.at, field.kind, field.name).unwrap();
        }
    }
    fn codes<T: core::fmt::Debug>(text: &mut String, name: &str, all: &[T]) {
        let values: Vec<String> = all.iter().enumerate().map(|(i, value)| std::format!("{i} `{value:?}`")).collect();
        writeln!(text, "| [`{name}`] | {} |", values.join(", ")).unwrap();
    }
    let mut text = String::from("<!-- Made from the records: `WAFT_WRITE_TABLES=1 cargo test -p waft tables` -->\n");
    table::<Header>(&mut text, "Header");
    table::<Tensor>(&mut text, "Tensor");
    table::<Conv2d>(&mut text, "Operation: conv2d");
    table::<GroupNorm>(&mut text, "Operation: group norm");
    table::<Attention>(&mut text, "Operation: attention");
    table::<Embed>(&mut text, "Operation: embed");
    table::<Linear>(&mut text, "Operation: linear");
    table::<Activate>(&mut text, "Operation: activate");
    table::<Observe>(&mut text, "Operation: observe");
    table::<LayerNorm>(&mut text, "Operation: layer norm");
    table::<LinearAttention>(&mut text, "Operation: linear attention");
    table::<Classifier>(&mut text, "Operation: classifier");
    table::<Filter>(&mut text, "Operation: filter");
    table::<Schedule>(&mut text, "Schedule");
    table::<FixedStep>(&mut text, "Step in i8");
    table::<FloatStep>(&mut text, "Step in f16 and f32");
    table::<Level>(&mut text, "Level of a step");
    table::<Threshold>(&mut text, "Dynamic thresholding");
    table::<Variance>(&mut text, "Learned variance of a step");
    table::<StepScales>(&mut text, "Scales of a step");
    table::<FixedAction>(&mut text, "Action in i8");
    table::<FloatAction>(&mut text, "Action in f16 and f32");
    text.push_str("\n# Codes\n| field | values |\n|---|---|\n");
    codes(&mut text, "Precision", Precision::ALL);
    codes(&mut text, "Output", Output::ALL);
    codes(&mut text, "Element", Element::ALL);
    codes(&mut text, "OpKind", OpKind::ALL);
    codes(&mut text, "Activation", Activation::ALL);
    codes(&mut text, "Gather", Gather::ALL);
    codes(&mut text, "Upsample", Upsample::ALL);
    codes(&mut text, "Shuffle", Shuffle::ALL);
    codes(&mut text, "WeightLayout", WeightLayout::ALL);
    codes(&mut text, "Bias", Bias::ALL);
    codes(&mut text, "Affine", Affine::ALL);
    codes(&mut text, "Film", Film::ALL);
    codes(&mut text, "Center", Center::ALL);
    codes(&mut text, "Pass", Pass::ALL);
    text
}

#[test]
#[cfg_attr(miri, ignore = "text is safe code")]
fn documentation_has_the_tables_of_the_records() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/format/tables.md");
    if std::env::var_os("WAFT_WRITE_TABLES").is_some() {
        std::fs::write(&path, tables()).expect("writes");
    }
    let (found, tables) = (std::fs::read_to_string(&path).expect("readable"), tables());
    for &kind in OpKind::ALL {
        let mut bytes = [0; OP_BYTES];
        bytes[0] = kind.code();
        let name = Op::read(&bytes, 0).expect("a kind").name();
        let title = std::format!("\n# Operation: {}, ", name.replace('_', " "));
        assert!(tables.contains(&title), "the documentation has no table of {kind:?}");
    }
    assert!(found == tables, "tables.md is out of date: run WAFT_WRITE_TABLES=1 cargo test -p waft tables");
}
