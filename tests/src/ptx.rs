//! A GPU for tests: interprets the PTX that ships, thread by thread, so that the very instructions are checked where there
//! is no GPU. It also refuses what a GPU would do quietly: accesses outside the memories or misaligned, and races, that is
//! bytes that one thread of a launch writes and another reads or writes.
//!
//! It knows the instructions that the kernels consist of, by the PTX ISA 6.5, and panics at any other.

use std::collections::HashMap;

use waft_host::gpu::{Device, GpuError, Launch, Program};
use waft_kernels::{BLOCK_WARPS, LANES, PTX, Space};

/// Kind and bits of a type.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Type {
    signed: bool,
    float: bool,
    bits: u32,
}

impl Type {
    fn parse(name: &str) -> Option<Self> {
        let bits = match name {
            "pred" => 1,
            _ => name.get(1..)?.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?,
        };
        let kind = name.chars().next()?;
        "busfp".contains(kind).then_some(Self { signed: kind == 's', float: kind == 'f', bits })
    }

    fn unsigned(self, value: u64) -> u64 {
        if self.bits == 64 { value } else { value & ((1 << self.bits) - 1) }
    }

    fn extended(self, value: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { (value << unused) as i64 >> unused } else { self.unsigned(value) as i64 }
    }
}

#[derive(Clone, Copy, Debug)]
enum Operand {
    Register(usize),
    Value(u64),
}

#[derive(Clone, Debug)]
enum Code {
    /// Number of the parameter.
    Parameter(usize),
    /// Offset, number of values.
    Load(i64, usize),
    Store(i64),
    /// `mov`, `cvta`.
    Move,
    /// The upper half of a double word.
    High,
    Arithmetic(&'static str),
    Compare(String),
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

#[derive(Clone, Debug)]
struct Instruction {
    line: usize,
    guard: Option<(usize, bool)>,
    code: Code,
    ty: Type,
    targets: Vec<usize>,
    sources: Vec<Operand>,
}

struct Entry {
    instructions: Vec<Instruction>,
    registers: Vec<u32>,
    local_bytes: usize,
    specials: [Option<usize>; 3],
}

const ARITHMETIC: [&str; 22] = [
    "add", "sub", "mul.lo", "mul.wide", "mul.hi", "mul.rn", "mad.lo", "div", "rcp", "and", "or", "xor", "not", "neg",
    "abs", "shl", "shr", "min", "max", "clz", "bfe", "prmt",
];

/// Parses entries and global tables.
fn parse(ptx: &str) -> (HashMap<String, Entry>, Vec<u8>) {
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
                    let width = if special.is_some() { 32 } else { widths[prefix] };
                    entry.registers.push(width);
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
                Some(hex) => Operand::Value(u64::from_str_radix(hex.trim_end_matches('U'), 16).expect("a number")),
                None if text.starts_with('%') => Operand::Register(register(text)),
                None => match text.parse::<i64>() {
                    Ok(value) => Operand::Value(value as u64),
                    Err(_) => Operand::Value(*symbols.get(text).unwrap_or_else(|| panic!("line {line}: {text}?"))),
                },
            };
            let ty = types.next().unwrap_or(Type { signed: false, float: false, bits: 64 });
            let arithmetic = || ARITHMETIC.into_iter().find(|known| name.starts_with(&format!("{known}.")));
            let (code, targets, sources): (Code, &[&str], Vec<Operand>) = match words[0] {
                "ld" if words[1] == "param" => {
                    let number = operands[1].trim_end_matches(']').rsplit('_').next().expect("a number");
                    (Code::Parameter(number.parse().expect("a number")), &operands[..1], vec![])
                }
                "ld" => {
                    let (base, offset) = address(operands.last().expect("an address"));
                    let count = operands.len() - 1;
                    (Code::Load(offset, count), &operands[..count], vec![operand(&base)])
                }
                "st" => {
                    let (base, offset) = address(operands[0]);
                    (Code::Store(offset), &[], vec![operand(&base), operand(operands[1])])
                }
                "mov" if operands[0] == "tmp" => (Code::High, &operands[1..2], vec![operand(operands[2])]),
                "mov" | "cvta" => (Code::Move, &operands[..1], vec![operand(operands[1])]),
                "setp" => {
                    let sources = vec![operand(operands[1]), operand(operands[2])];
                    (Code::Compare(words[1].into()), &operands[..1], sources)
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
                    let known = arithmetic().unwrap_or_else(|| panic!("line {line}: unknown instruction {name}"));
                    let sources = operands[1..].iter().map(|text| operand(text)).collect();
                    (Code::Arithmetic(known), &operands[..1], sources)
                }
            };
            let targets = targets.iter().map(|name| register(name)).collect();
            entry.instructions.push(Instruction { line, guard, code, ty, targets, sources });
        }
    }
    for (at, label) in branches {
        entry.instructions[at].code = Code::Branch(labels[label]);
    }
    entry
}

/// Where each memory starts: far apart, so that no address of one reaches another.
const SPACE: u64 = 1 << 40;
const GLOBALS: u64 = 5 * SPACE;
const LOCAL: u64 = 6 * SPACE;

/// Memory that threads share, and who of a launch touched each byte: 0 nobody, `u32::MAX` several.
#[derive(Default)]
struct Shared {
    bytes: Vec<u8>,
    readers: Vec<u32>,
    writers: Vec<u32>,
}

/// The device.
pub struct Emulator {
    entries: HashMap<String, Entry>,
    /// Constants, arenas, scratch, state, global tables.
    memories: [Shared; 5],
    batch: u32,
}

impl Default for Emulator {
    fn default() -> Self {
        let (entries, globals) = parse(PTX);
        let mut memories: [Shared; 5] = Default::default();
        memories[4].bytes = globals;
        Self { entries, memories, batch: 0 }
    }
}

struct Thread {
    id: u32,
    registers: Vec<u64>,
    local: Vec<u8>,
    at: usize,
    done: bool,
}

impl Thread {
    fn value(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.registers[register],
            Operand::Value(value) => value,
        }
    }

    fn set(&mut self, widths: &[u32], register: usize, value: u64) {
        let width = widths[register];
        self.registers[register] = if width == 64 { value } else { value & ((1 << width) - 1) };
    }

    /// Runs to the next instruction of the whole warp, or to the end.
    fn run(&mut self, entry: &Entry, memories: &mut [Shared; 5], parameters: &[u64; 6]) {
        loop {
            let instruction = &entry.instructions[self.at];
            let Instruction { line, ty, .. } = *instruction;
            if matches!(instruction.code, Code::Exchange(_) | Code::Multiply(_)) {
                assert!(instruction.guard.is_none(), "line {line}: a guarded instruction of the warp");
                return;
            }
            self.at += 1;
            if let Some((register, wanted)) = instruction.guard
                && (self.registers[register] == 1) != wanted
            {
                continue;
            }
            let source = |place: usize| self.value(instruction.sources[place]);
            let result = match &instruction.code {
                Code::Parameter(number) => parameters[*number],
                Code::Load(offset, count) => {
                    let address = source(0).wrapping_add(*offset as u64);
                    let size = ty.bits as usize / 8;
                    for (place, &target) in instruction.targets.iter().enumerate() {
                        let mut bytes = [0; 8];
                        let at = address + (place * size) as u64;
                        // A vector is aligned as a whole.
                        assert!(address.is_multiple_of((size * count) as u64), "line {line}: misaligned load");
                        self.load(memories, line, at, &mut bytes[..size]);
                        let value = ty.extended(u64::from_le_bytes(bytes)) as u64;
                        self.set(&entry.registers, target, value);
                    }
                    continue;
                }
                Code::Store(offset) => {
                    let address = source(0).wrapping_add(*offset as u64);
                    let bytes = source(1).to_le_bytes();
                    self.store(memories, line, address, &bytes[..ty.bits as usize / 8]);
                    continue;
                }
                Code::Move => source(0),
                Code::High => source(0) >> 32,
                Code::Arithmetic(name) => arithmetic(name, ty, &|place| source(place)),
                Code::Compare(name) => compare(name, ty, source(0), source(1)).into(),
                Code::Select => source(if source(2) == 1 { 0 } else { 1 }),
                Code::Convert(to, from) => convert(*to, *from, source(0)),
                Code::Branch(target) => {
                    self.at = *target;
                    continue;
                }
                Code::Exit => {
                    self.done = true;
                    return;
                }
                Code::Trap => panic!("line {line}: thread {} panics", self.id),
                Code::Exchange(_) | Code::Multiply(_) => unreachable!("returned above"),
            };
            self.set(&entry.registers, instruction.targets[0], result);
        }
    }

    fn load(&mut self, memories: &mut [Shared; 5], line: usize, address: u64, into: &mut [u8]) {
        let (space, at) = ((address / SPACE) as usize, (address % SPACE) as usize);
        if space == 6 {
            into.copy_from_slice(&self.local[at..at + into.len()]);
            return;
        }
        let memory = &mut memories[space - 1];
        let Some(from) = memory.bytes.get(at..at + into.len()) else {
            panic!("line {line}: thread {} loads from {at} of {} bytes in memory {space}", self.id, memory.bytes.len())
        };
        into.copy_from_slice(from);
        if memory.readers.is_empty() {
            return;
        }
        for at in at..at + into.len() {
            assert!(
                [0, self.id].contains(&memory.writers[at]),
                "line {line}: thread {} reads what another writes",
                self.id
            );
            let reader = &mut memory.readers[at];
            *reader = if [0, self.id].contains(reader) { self.id } else { u32::MAX };
        }
    }

    fn store(&mut self, memories: &mut [Shared; 5], line: usize, address: u64, bytes: &[u8]) {
        let (space, at) = ((address / SPACE) as usize, (address % SPACE) as usize);
        assert!(at.is_multiple_of(bytes.len()), "line {line}: misaligned store");
        if space == 6 {
            self.local[at..at + bytes.len()].copy_from_slice(bytes);
            return;
        }
        let memory = &mut memories[space - 1];
        assert!(!memory.readers.is_empty(), "line {line}: thread {} writes to constants", self.id);
        let Some(to) = memory.bytes.get_mut(at..at + bytes.len()) else {
            panic!("line {line}: thread {} stores to {at} of {} bytes in memory {space}", self.id, memory.readers.len())
        };
        to.copy_from_slice(bytes);
        for at in at..at + bytes.len() {
            for others in [memory.readers[at], memory.writers[at]] {
                assert!([0, self.id].contains(&others), "line {line}: thread {} writes what another uses", self.id);
            }
            memory.writers[at] = self.id;
        }
    }
}

fn arithmetic(name: &str, ty: Type, source: &dyn Fn(usize) -> u64) -> u64 {
    let float = |place: usize| f32::from_bits(source(place) as u32);
    if ty.float {
        let result = match name {
            "add" => float(0) + float(1),
            "sub" => float(0) - float(1),
            "mul.rn" => float(0) * float(1),
            "div" => float(0) / float(1),
            "rcp" => 1.0 / float(0),
            "neg" => -float(0),
            "abs" => float(0).abs(),
            "min" => float(0).min(float(1)),
            "max" => float(0).max(float(1)),
            _ => panic!("{name}.f32 is unknown"),
        };
        return result.to_bits().into();
    }
    let integer = |place: usize| ty.extended(source(place));
    let unsigned = |place: usize| ty.unsigned(source(place));
    let amount = || (source(1) as u32).min(ty.bits);
    match name {
        "add" => source(0).wrapping_add(source(1)),
        "sub" => source(0).wrapping_sub(source(1)),
        "mul.lo" => source(0).wrapping_mul(source(1)),
        "mul.wide" => integer(0).wrapping_mul(integer(1)) as u64,
        "mul.hi" if ty.signed => ((i128::from(integer(0)) * i128::from(integer(1))) >> ty.bits) as u64,
        "mul.hi" => ((u128::from(unsigned(0)) * u128::from(unsigned(1))) >> ty.bits) as u64,
        "mad.lo" => source(0).wrapping_mul(source(1)).wrapping_add(source(2)),
        "div" if ty.signed => integer(0).wrapping_div(integer(1)) as u64,
        "div" => unsigned(0) / unsigned(1),
        "and" => source(0) & source(1),
        "or" => source(0) | source(1),
        "xor" => source(0) ^ source(1),
        "not" => !source(0),
        "neg" => integer(0).wrapping_neg() as u64,
        "abs" => integer(0).wrapping_abs() as u64,
        "shl" => unsigned(0).checked_shl(amount()).unwrap_or(0),
        "shr" if ty.signed => (integer(0) >> amount().min(63)) as u64,
        "shr" => unsigned(0).checked_shr(amount()).unwrap_or(0),
        "min" if ty.signed => integer(0).min(integer(1)) as u64,
        "max" if ty.signed => integer(0).max(integer(1)) as u64,
        "min" => unsigned(0).min(unsigned(1)),
        "max" => unsigned(0).max(unsigned(1)),
        "clz" => u64::from(unsigned(0).leading_zeros()) - (64 - u64::from(ty.bits)),
        "bfe" if !ty.signed => unsigned(0).checked_shr(source(1) as u32).unwrap_or(0) & ((1 << source(2)) - 1),
        "prmt" => {
            let bytes = (source(1) << 32 | source(0) & 0xFFFF_FFFF).to_le_bytes();
            let pick = |place: u32| {
                let selector = source(2) >> (4 * place) & 15;
                let byte = bytes[selector as usize & 7];
                // The upper bit asks for copies of the sign.
                let byte = if selector < 8 { byte } else { ((byte as i8) >> 7) as u8 };
                u64::from(byte) << (8 * place)
            };
            (0..4).map(pick).sum()
        }
        _ => panic!("{name} is unknown for {ty:?}"),
    }
}

fn compare(name: &str, ty: Type, left: u64, right: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (order, name) = if ty.float {
        let (left, right) = (f32::from_bits(left as u32), f32::from_bits(right as u32));
        match left.partial_cmp(&right) {
            Some(order) => (order, name.strip_suffix('u').unwrap_or(name)),
            // Comparisons of what is no number hold only in their unordered form.
            None => return name == "nan" || name.len() == 3 && name.ends_with('u'),
        }
    } else if ty.signed {
        (ty.extended(left).cmp(&ty.extended(right)), name)
    } else {
        (ty.unsigned(left).cmp(&ty.unsigned(right)), name)
    };
    match name {
        "eq" => order == Equal,
        "ne" => order != Equal,
        "lt" => order == Less,
        "le" => order != Greater,
        "gt" => order == Greater,
        "ge" => order != Less,
        "nan" => false,
        _ => panic!("setp.{name} is unknown"),
    }
}

fn convert(to: Type, from: Type, value: u64) -> u64 {
    match (to.float, from.float) {
        (false, false) => from.extended(value) as u64,
        (true, false) => (from.extended(value) as f32).to_bits().into(),
        (false, true) => {
            // Towards zero, saturated to the type; what is no number becomes 0.
            let value = f64::from(f32::from_bits(value as u32));
            let (least, most) = match (to.signed, to.bits) {
                (true, bits) => (-(2f64.powi(bits as i32 - 1)), 2f64.powi(bits as i32 - 1) - 1.0),
                (false, bits) => (0.0, 2f64.powi(bits as i32) - 1.0),
            };
            value.max(least).min(most) as i64 as u64
        }
        (true, true) => panic!("conversions between floats are unknown"),
    }
}

impl Emulator {
    fn warp(&mut self, entry: &str, block: u32, warp: u32, parameters: &[u64; 6]) {
        let entry = &self.entries[entry];
        let mut threads: Vec<Thread> = (0..LANES as u32)
            .map(|lane| {
                let place = warp * LANES as u32 + lane;
                let width = BLOCK_WARPS * LANES as u32;
                let mut registers = vec![0; entry.registers.len()];
                for (special, value) in entry.specials.iter().zip([place, block, width]) {
                    if let Some(register) = special {
                        registers[*register] = value.into();
                    }
                }
                Thread {
                    id: block * width + place + 1,
                    registers,
                    local: vec![0; entry.local_bytes],
                    at: 0,
                    done: false,
                }
            })
            .collect();
        loop {
            for thread in &mut threads {
                if !thread.done {
                    thread.run(entry, &mut self.memories, parameters);
                }
            }
            if threads.iter().all(|thread| thread.done) {
                return;
            }
            let at = threads[0].at;
            let together = threads.iter().all(|thread| !thread.done && thread.at == at);
            let instruction = &entry.instructions[at];
            assert!(together, "line {}: not all threads of the warp are here", instruction.line);
            let value = |lane: usize, place: usize| threads[lane].value(instruction.sources[place]) as u32;
            let results: Vec<Vec<u32>> = match instruction.code {
                Code::Exchange(named) => {
                    let other = |lane: usize| value(lane, 1) as usize ^ if named { 0 } else { lane };
                    (0..LANES).map(|lane| vec![value(other(lane), 0)]).collect()
                }
                Code::Multiply(unsigned) => {
                    // PTX ISA, fragments of mma.m8n8k16: row r of A and column c of B lie in the four lanes from 4·r and
                    // 4·c on, four bytes each; lane l holds columns 2·(l mod 4) and the next of row l / 4 of the result.
                    let byte =
                        |lane: usize, place: usize, k: usize| value(4 * lane + k / 4, place).to_le_bytes()[k % 4];
                    let sum = |row: usize, column: usize, start: u32| {
                        (0..16).fold(start as i32, |sum, k| {
                            let a = byte(row, 0, k);
                            let a = if unsigned { i32::from(a) } else { i32::from(a as i8) };
                            sum.wrapping_add(a * i32::from(byte(column, 1, k) as i8))
                        }) as u32
                    };
                    let result = |lane: usize, j: usize| sum(lane / 4, lane % 4 * 2 + j, value(lane, 2 + j));
                    (0..LANES).map(|lane| vec![result(lane, 0), result(lane, 1)]).collect()
                }
                _ => unreachable!("threads stop at instructions of the warp only"),
            };
            for (thread, results) in threads.iter_mut().zip(results) {
                for (&target, result) in instruction.targets.iter().zip(results) {
                    thread.set(&entry.registers, target, result.into());
                }
                thread.at += 1;
            }
        }
    }
}

impl Device for Emulator {
    fn name(&self) -> String {
        "PTX interpreter".into()
    }

    fn driver(&self) -> Option<String> {
        None
    }

    fn capacity(&mut self, _program: &Program) -> Result<u32, GpuError> {
        Ok(3)
    }

    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError> {
        let pictures = batch as usize;
        self.batch = batch;
        self.memories[0].bytes.clone_from(&program.constants);
        let sizes = [
            program.strides.arena as usize * pictures,
            program.strides.scratch as usize * pictures,
            program.state_bytes(batch),
        ];
        for (memory, size) in self.memories[1..4].iter_mut().zip(sizes) {
            memory.bytes = vec![0xA5; size];
        }
        Ok(())
    }

    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.memories[space as usize].bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        bytes.copy_from_slice(&self.memories[space as usize].bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError> {
        for _ in 0..times {
            for launch in launches {
                for memory in &mut self.memories[1..4] {
                    memory.readers = vec![0; memory.bytes.len()];
                    memory.writers = vec![0; memory.bytes.len()];
                }
                let spaces = [1, 2, 3, 4].map(|space| space * SPACE);
                let [constants, arenas, scratch, state] = spaces;
                let parameters = [constants, arenas, scratch, state, launch.parameters.into(), self.batch.into()];
                let blocks = launch.kernel.warps(self.batch).div_ceil(BLOCK_WARPS.into()) as u32;
                for block in 0..blocks {
                    for warp in 0..BLOCK_WARPS {
                        self.warp(launch.kernel.name(), block, warp, &parameters);
                    }
                }
            }
        }
        Ok(())
    }
}
