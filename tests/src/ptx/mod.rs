//! A GPU for tests: interprets the PTX that ships, thread by thread, so that the very instructions are checked where there
//! is no GPU. It also refuses what a GPU would do quietly: accesses outside the memories or misaligned, and races, that is
//! bytes that one thread of a launch writes and another reads or writes.
//!
//! It knows the instructions that the kernels consist of, by the PTX ISA 6.5, and panics at any other.

mod program;
mod value;

use std::collections::HashMap;

use waft_host::gpu::{Device, GpuError, Launch, Program};
use waft_kernels::{BLOCK_WARPS, LANES, PTX, Space};

use program::{Code, Entry, Instruction, Operand, SPACE, parse};
use value::{arithmetic, compare, convert};

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
