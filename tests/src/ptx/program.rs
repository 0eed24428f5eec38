//! The text of PTX as lists of instructions.

use std::collections::HashMap;

use waft_kernels::LANES;

use super::value::{Compute, Relation, Type, Values, arithmetic};

/// Where each memory starts: far apart, so that no address of one reaches another.
pub(super) const SPACE: u64 = 1 << 40;
const GLOBALS: u64 = 5 * SPACE;
const LOCAL: u64 = 6 * SPACE;

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Register(usize),
    /// The same value for each thread.
    Value(Box<Values>),
}

pub(super) enum Code {
    /// Number of the parameter.
    Parameter(usize),
    /// Offset from the address.
    Load(i64),
    Store(i64),
    /// `mov`, `cvta`.
    Move,
    /// The upper half of a double word.
    High,
    Arithmetic(Compute),
    Compare(Relation),
    Select,
    /// To, from, rounding towards zero.
    Convert(Type, Type),
    Branch(usize),
    /// Whether the lane is named, not the bits in which its number differs.
    Exchange(bool),
    /// Whether activations are unsigned.
    Multiply(bool),
    Exit,
    Trap,
}

impl Code {
    /// Whether all threads of a warp take it together.
    pub(super) fn is_of_warp(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::Multiply(_))
    }
}

pub(super) struct Instruction {
    pub(super) line: usize,
    pub(super) guard: Option<(usize, bool)>,
    pub(super) code: Code,
    pub(super) ty: Type,
    pub(super) targets: Vec<usize>,
    /// As many as there are, then zeros.
    pub(super) sources: [Operand; 4],
}

pub(super) struct Entry {
    pub(super) instructions: Vec<Instruction>,
    /// The bits that each register has.
    pub(super) registers: Vec<u64>,
    pub(super) local_bytes: usize,
    pub(super) specials: [Option<usize>; 3],
}

const ARITHMETIC: [&str; 26] = [
    "add",
    "sub",
    "mul.lo",
    "mul.wide",
    "mul.hi",
    "mul.rn",
    "mad.lo",
    "div",
    "rem",
    "rcp",
    "and",
    "or",
    "xor",
    "not",
    "neg",
    "abs",
    "shl",
    "shr",
    "min",
    "max",
    "clz",
    "popc",
    "bfe",
    "prmt",
    "shf.r.wrap",
    "shf.l.wrap",
];

/// The flag of a thread, and what it becomes: registers without a name in PTX.
const CARRY: [&str; 2] = ["%carry_flag", "%carry_next"];

/// Of an instruction of 64 bits that sets the flag: whether it takes it as well, and the parts that it is made of.
fn carry(name: &str) -> Option<(bool, [&'static str; 2])> {
    match name {
        "add.cc.s64" | "add.cc.u64" => Some((false, ["carry", "add with carry"])),
        "addc.cc.s64" | "addc.cc.u64" => Some((true, ["carry", "add with carry"])),
        "sub.cc.s64" | "sub.cc.u64" => Some((false, ["borrow", "sub with borrow"])),
        "subc.cc.s64" | "subc.cc.u64" => Some((true, ["borrow", "sub with borrow"])),
        _ => None,
    }
}

/// Parses entries and global tables.
pub(super) fn parse(ptx: &str) -> (HashMap<String, Entry>, Vec<u8>) {
    let mut globals: Vec<u8> = vec![];
    let mut symbols: HashMap<String, u64> = HashMap::new();
    let mut entries = HashMap::new();
    let mut lines = ptx.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        if let Some(rest) = line.strip_prefix(".global ") {
            let (head, values) = rest.split_once('=').expect("tables have values");
            let name = head.split_whitespace().last().and_then(|word| word.split('[').next()).expect("a name");
            globals.resize(globals.len().next_multiple_of(16), 0);
            symbols.insert(name.into(), GLOBALS + globals.len() as u64);
            let values = values.trim().trim_start_matches('{').trim_end_matches(';').trim_end_matches('}');
            globals.extend(values.split(',').map(|value| value.trim().parse::<u8>().expect("bytes")));
        } else if let Some(rest) = line.strip_prefix(".visible .entry ") {
            let name = rest.trim_end_matches('(').to_string();
            let body: Vec<(usize, &str)> = lines
                .by_ref()
                .skip_while(|(_, line)| *line != "{")
                .skip(1)
                .take_while(|(_, line)| *line != "}")
                .collect();
            entries.insert(name, parse_body(&body, &symbols));
        }
    }
    (entries, globals)
}

fn same(value: u64) -> Operand {
    Operand::Value(Box::new([value; LANES]))
}

/// Sources of an instruction, as many as the one with the most has.
fn padded(sources: &[Operand]) -> [Operand; 4] {
    std::array::from_fn(|place| sources.get(place).cloned().unwrap_or(same(0)))
}

fn parse_body(body: &[(usize, &str)], globals: &HashMap<String, u64>) -> Entry {
    let mut entry = Entry { instructions: vec![], registers: vec![], local_bytes: 0, specials: [None; 3] };
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut widths: HashMap<String, u32> = HashMap::new();
    let mut symbols = globals.clone();
    let mut labels: HashMap<&str, usize> = HashMap::new();
    let mut branches: Vec<(usize, &str)> = vec![];
    for &(line, text) in body {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix(".local ") {
            let word = rest.split_whitespace().last().expect("a name");
            let (name, size) = word.trim_end_matches("];").split_once('[').expect("an array");
            entry.local_bytes = size.parse().expect("a size");
            symbols.insert(name.into(), LOCAL);
        } else if let Some(rest) = text.strip_prefix(".reg ") {
            let mut words = rest.trim_end_matches(';').split_whitespace();
            let ty = Type::parse(words.next().expect("a type").trim_start_matches('.')).expect("a type");
            let name = words.next().expect("a name").split('<').next().expect("a prefix");
            widths.insert(name.into(), ty.bits);
        } else if let Some(label) = text.strip_suffix(':') {
            labels.insert(label, entry.instructions.len());
        } else if text.is_empty() || text.starts_with(".pragma") || text.starts_with("{ //") || text.starts_with("} //")
        {
            // Brackets of a call, and hints.
        } else {
            let text = text.strip_prefix("{ .reg .b32 tmp;").map_or(text, |rest| rest.trim_end_matches('}')).trim();
            let (guard, text) = match text.strip_prefix('@') {
                Some(rest) => {
                    let (register, rest) = rest.split_once(char::is_whitespace).expect("an instruction");
                    (Some(register), rest.trim())
                }
                None => (None, text),
            };
            let text = text.trim_end_matches(';').trim();
            let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let mut register = |name: &str| {
                *names.entry(name.to_string()).or_insert_with(|| {
                    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
                    let special = ["%tid.x", "%ctaid.x", "%ntid.x"].iter().position(|&special| special == name);
                    let is_word = special.is_some() || CARRY.contains(&name);
                    let width = if is_word { 32 } else { widths[prefix] };
                    entry.registers.push(u64::MAX >> (64 - width));
                    if let Some(special) = special {
                        entry.specials[special] = Some(entry.registers.len() - 1);
                    }
                    entry.registers.len() - 1
                })
            };
            let guard = guard.map(|guard| match guard.strip_prefix('!') {
                Some(guard) => (register(guard), false),
                None => (register(guard), true),
            });
            let name = name.trim_end_matches(';');
            let words: Vec<&str> = name.split('.').collect();
            let mut types = words.iter().filter_map(|word| Type::parse(word));
            let operands: Vec<&str> =
                operands.split([',', '{', '}']).map(str::trim).filter(|o| !o.is_empty()).collect();
            let address = |operand: &str| {
                let inner = operand.trim_start_matches('[').trim_end_matches(']');
                match inner.split_once('+') {
                    Some((base, offset)) => (base.to_string(), offset.parse::<i64>().expect("an offset")),
                    None => (inner.to_string(), 0),
                }
            };
            let mut operand = |text: &str| match text.strip_prefix("0f").or(text.strip_prefix("0x")) {
                Some(hex) => same(u64::from_str_radix(hex.trim_end_matches('U'), 16).expect("a number")),
                None if text.starts_with('%') => Operand::Register(register(text)),
                None => match text.parse::<i64>() {
                    Ok(value) => same(value as u64),
                    Err(_) => same(*symbols.get(text).unwrap_or_else(|| panic!("line {line}: {text}?"))),
                },
            };
            let ty = types.next().unwrap_or(Type { signed: false, float: false, bits: 64 });
            if let Some((takes, [carries, adds])) = carry(name) {
                // The new flag is put aside, as the target may be a source and the old flag is one.
                let [flag, new_flag] = CARRY.map(&mut register);
                let [target, left, right] = [operands[0], operands[1], operands[2]];
                let mut operand = |text: &str| match text.strip_prefix('%') {
                    Some(_) => Operand::Register(register(text)),
                    None => same(text.parse::<i64>().expect("a number") as u64),
                };
                let (left, right) = (operand(left), operand(right));
                let target = register(target);
                let given = if takes { Operand::Register(flag) } else { same(0) };
                let mut push = |code: Code, target: usize, sources: &[Operand]| {
                    let (targets, sources) = (vec![target], padded(sources));
                    entry.instructions.push(Instruction { line, guard, code, ty, targets, sources });
                };
                let sources = [left, right, given];
                push(Code::Arithmetic(arithmetic(carries, ty)), new_flag, &sources);
                push(Code::Arithmetic(arithmetic(adds, ty)), target, &sources);
                push(Code::Move, flag, &[Operand::Register(new_flag)]);
                continue;
            }
            let known = || ARITHMETIC.into_iter().find(|known| name.starts_with(&format!("{known}.")));
            let (code, targets, sources): (Code, &[&str], Vec<Operand>) = match words[0] {
                "ld" if words[1] == "param" => {
                    let number = operands[1].trim_end_matches(']').rsplit('_').next().expect("a number");
                    (Code::Parameter(number.parse().expect("a number")), &operands[..1], vec![])
                }
                "ld" => {
                    let (base, offset) = address(operands.last().expect("an address"));
                    let count = operands.len() - 1;
                    (Code::Load(offset), &operands[..count], vec![operand(&base)])
                }
                "st" => {
                    let (base, offset) = address(operands[0]);
                    (Code::Store(offset), &[], vec![operand(&base), operand(operands[1])])
                }
                "mov" if operands[0] == "tmp" => (Code::High, &operands[1..2], vec![operand(operands[2])]),
                "mov" | "cvta" => (Code::Move, &operands[..1], vec![operand(operands[1])]),
                "setp" => {
                    let sources = vec![operand(operands[1]), operand(operands[2])];
                    (Code::Compare(Relation::parse(words[1])), &operands[..1], sources)
                }
                "selp" => (Code::Select, &operands[..1], operands[1..].iter().map(|text| operand(text)).collect()),
                "cvt" => {
                    let from = types.next().expect("a source type");
                    (Code::Convert(ty, from), &operands[..1], vec![operand(operands[1])])
                }
                "bra" => {
                    branches.push((entry.instructions.len(), operands[0]));
                    (Code::Branch(0), &[], vec![])
                }
                "shfl" => (
                    Code::Exchange(words[2] == "idx"),
                    &operands[..1],
                    vec![operand(operands[1]), operand(operands[2])],
                ),
                "mma" => {
                    let sources = operands[2..].iter().map(|text| operand(text)).collect();
                    (Code::Multiply(words.contains(&"u8")), &operands[..2], sources)
                }
                "ret" | "exit" => (Code::Exit, &[], vec![]),
                "trap" | "call" => (Code::Trap, &[], vec![]),
                _ => {
                    let known = known().unwrap_or_else(|| panic!("line {line}: unknown instruction {name}"));
                    let sources = operands[1..].iter().map(|text| operand(text)).collect();
                    (Code::Arithmetic(arithmetic(known, ty)), &operands[..1], sources)
                }
            };
            let targets = targets.iter().map(|name| register(name)).collect();
            let sources = padded(&sources);
            entry.instructions.push(Instruction { line, guard, code, ty, targets, sources });
        }
    }
    for (at, label) in branches {
        entry.instructions[at].code = Code::Branch(labels[label]);
    }
    entry
}
