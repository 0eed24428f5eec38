//! A GPU for tests: interprets the PTX that ships, warp by warp, so that the very instructions are checked where there
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
use value::{Values, convert};

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

/// Threads that take an instruction together.
struct Warp {
    /// Number of the first thread, from 1.
    first: u32,
    registers: Vec<Values>,
    /// Memory of each thread's own.
    local: Vec<Vec<u8>>,
    /// The next instruction of each thread.
    at: [usize; LANES],
}

/// Where a thread is that has ended.
const ENDED: usize = usize::MAX;

impl Warp {
    fn new(entry: &Entry, block: u32, warp: u32) -> Self {
        let width = BLOCK_WARPS * LANES as u32;
        let place = warp * LANES as u32;
        let mut registers = vec![[0; LANES]; entry.registers.len()];
        let places = std::array::from_fn(|lane| u64::from(place) + lane as u64);
        let specials = [places, [block.into(); LANES], [width.into(); LANES]];
        for (special, values) in entry.specials.iter().zip(specials) {
            if let Some(register) = special {
                registers[*register] = values;
            }
        }
        let local = vec![vec![0; entry.local_bytes]; LANES];
        Self { first: block * width + place + 1, registers, local, at: [0; LANES] }
    }

    fn values<'v>(&'v self, operand: &'v Operand) -> &'v Values {
        match operand {
            Operand::Register(register) => &self.registers[*register],
            Operand::Value(values) => values,
        }
    }

    /// Gives the threads that take an instruction new values in a register.
    fn set(&mut self, entry: &Entry, register: usize, values: &Values, active: &[bool; LANES]) {
        let bits = entry.registers[register];
        for ((to, &value), &is_active) in self.registers[register].iter_mut().zip(values).zip(active) {
            *to = if is_active { value & bits } else { *to };
        }
    }

    /// The instruction to take next: the earliest at which threads are, so that threads that parted meet again. At instructions of
    /// the whole warp threads wait for each other.
    fn next(&self, entry: &Entry) -> usize {
        let at = self.at.into_iter().fold(ENDED, usize::min);
        let waits = |&at: &usize| at == ENDED || entry.instructions[at].code.is_of_warp();
        if !waits(&at) || self.at == [at; LANES] {
            return at;
        }
        self.at.into_iter().filter(|at| !waits(at)).min().unwrap_or(at)
    }

    /// Runs to the end.
    fn run(&mut self, entry: &Entry, memories: &mut [Shared; 5], parameters: &[u64; 6]) {
        let mut results = [0; LANES];
        loop {
            let at = self.next(entry);
            if at == ENDED {
                return;
            }
            let instruction = &entry.instructions[at];
            let &Instruction { line, ty, guard, .. } = instruction;
            let mut active = self.at.map(|other| other == at);
            for (at, is_active) in self.at.iter_mut().zip(active) {
                *at += usize::from(is_active);
            }
            if instruction.code.is_of_warp() {
                assert!(guard.is_none(), "line {line}: a guarded instruction of the warp");
                assert_eq!(active, [true; LANES], "line {line}: not all threads of the warp are here");
            }
            if let Some((register, wanted)) = guard {
                for (is_active, value) in active.iter_mut().zip(self.registers[register]) {
                    *is_active &= (value == 1) == wanted;
                }
            }
            let sources = [0, 1, 2, 3].map(|place| self.values(&instruction.sources[place]));
            match &instruction.code {
                Code::Parameter(number) => results = [parameters[*number]; LANES],
                Code::Load(offset) => {
                    let addresses = sources[0].map(|at| at.wrapping_add(*offset as u64));
                    self.load(entry, memories, instruction, &addresses, &active);
                    continue;
                }
                Code::Store(offset) => {
                    let size = ty.bits as usize / 8;
                    let (addresses, values) = (*sources[0], *sources[1]);
                    for lane in (0..LANES).filter(|&lane| active[lane]) {
                        let address = addresses[lane].wrapping_add(*offset as u64);
                        self.store(memories, line, lane, address, &values[lane].to_le_bytes()[..size]);
                    }
                    continue;
                }
                Code::Move => results = *sources[0],
                Code::High => results = sources[0].map(|value| value >> 32),
                Code::Arithmetic(compute) => {
                    let [a, b, c, _] = sources;
                    if active == [true; LANES] {
                        compute(ty, [a, b, c], &mut results);
                    } else {
                        // Threads that are elsewhere have values here that may be no divisors.
                        let taken = |values: &Values| std::array::from_fn(|i| if active[i] { values[i] } else { 1 });
                        let [a, b, c] = [a, b, c].map(taken);
                        compute(ty, [&a, &b, &c], &mut results);
                    }
                }
                Code::Compare(relation) => {
                    for ((result, &a), &b) in results.iter_mut().zip(sources[0]).zip(sources[1]) {
                        *result = relation.holds(ty, a, b).into();
                    }
                }
                Code::Select => {
                    for (lane, result) in results.iter_mut().enumerate() {
                        *result = if sources[2][lane] == 1 { sources[0][lane] } else { sources[1][lane] };
                    }
                }
                Code::Convert(to, from) => results = sources[0].map(|value| convert(*to, *from, value)),
                Code::Branch(target) => {
                    self.go(*target, &active);
                    continue;
                }
                Code::Exit => {
                    self.go(ENDED, &active);
                    continue;
                }
                Code::Trap => match active.iter().position(|&is_active| is_active) {
                    Some(lane) => panic!("line {line}: thread {} panics", self.first + lane as u32),
                    None => continue,
                },
                Code::Exchange(named) => {
                    let other = |lane: usize| sources[1][lane] as usize ^ if *named { 0 } else { lane };
                    results = std::array::from_fn(|lane| sources[0][other(lane)]);
                }
                Code::Multiply(unsigned) => {
                    let [even, odd] = multiply(sources, *unsigned);
                    self.set(entry, instruction.targets[1], &odd, &active);
                    results = even;
                }
            }
            self.set(entry, instruction.targets[0], &results, &active);
        }
    }

    /// Moves the threads that take an instruction to another.
    fn go(&mut self, target: usize, active: &[bool; LANES]) {
        for (at, &is_active) in self.at.iter_mut().zip(active) {
            *at = if is_active { target } else { *at };
        }
    }

    /// Loads what an instruction asks for from the threads' addresses.
    fn load(
        &mut self,
        entry: &Entry,
        memories: &mut [Shared; 5],
        instruction: &Instruction,
        addresses: &Values,
        active: &[bool; LANES],
    ) {
        let &Instruction { line, ty, ref targets, .. } = instruction;
        let size = ty.bits as usize / 8;
        let vector = (size * targets.len()) as u64;
        for (place, &target) in targets.iter().enumerate() {
            let mut values = [0; LANES];
            for lane in (0..LANES).filter(|&lane| active[lane]) {
                // A vector is aligned as a whole.
                assert!(addresses[lane].is_multiple_of(vector), "line {line}: misaligned load");
                let mut bytes = [0; 8];
                self.read(memories, line, lane, addresses[lane] + (place * size) as u64, &mut bytes[..size]);
                values[lane] = ty.extended(u64::from_le_bytes(bytes)) as u64;
            }
            self.set(entry, target, &values, active);
        }
    }

    fn read(&self, memories: &mut [Shared; 5], line: usize, lane: usize, address: u64, into: &mut [u8]) {
        let id = self.first + lane as u32;
        let (space, at) = ((address / SPACE) as usize, (address % SPACE) as usize);
        if space == 6 {
            into.copy_from_slice(&self.local[lane][at..at + into.len()]);
            return;
        }
        let memory = &mut memories[space - 1];
        let Some(from) = memory.bytes.get(at..at + into.len()) else {
            panic!("line {line}: thread {} loads from {at} of {} bytes in memory {space}", id, memory.bytes.len())
        };
        into.copy_from_slice(from);
        if memory.readers.is_empty() {
            return;
        }
        for at in at..at + into.len() {
            assert!([0, id].contains(&memory.writers[at]), "line {line}: thread {} reads what another writes", id);
            let reader = &mut memory.readers[at];
            *reader = if [0, id].contains(reader) { id } else { u32::MAX };
        }
    }

    fn store(&mut self, memories: &mut [Shared; 5], line: usize, lane: usize, address: u64, bytes: &[u8]) {
        let id = self.first + lane as u32;
        let (space, at) = ((address / SPACE) as usize, (address % SPACE) as usize);
        assert!(at.is_multiple_of(bytes.len()), "line {line}: misaligned store");
        if space == 6 {
            self.local[lane][at..at + bytes.len()].copy_from_slice(bytes);
            return;
        }
        let memory = &mut memories[space - 1];
        assert!(!memory.readers.is_empty(), "line {line}: thread {} writes to constants", id);
        let Some(to) = memory.bytes.get_mut(at..at + bytes.len()) else {
            panic!("line {line}: thread {} stores to {at} of {} bytes in memory {space}", id, memory.readers.len())
        };
        to.copy_from_slice(bytes);
        for at in at..at + bytes.len() {
            for others in [memory.readers[at], memory.writers[at]] {
                assert!([0, id].contains(&others), "line {line}: thread {} writes what another uses", id);
            }
            memory.writers[at] = id;
        }
    }
}

/// PTX ISA, fragments of mma.m8n8k16: row r of A and column c of B lie in the four lanes from 4·r and 4·c on, four bytes each;
/// lane l holds columns 2·(l mod 4) and the next of row l / 4 of the result.
fn multiply(sources: [&Values; 4], unsigned: bool) -> [Values; 2] {
    let byte = |place: usize, lane: usize, k: usize| (sources[place][4 * lane + k / 4] as u32).to_le_bytes()[k % 4];
    let sum = |row: usize, column: usize, start: u64| {
        (0..16).fold(start as i32, |sum, k| {
            let a = byte(0, row, k);
            let a = if unsigned { i32::from(a) } else { i32::from(a as i8) };
            sum.wrapping_add(a * i32::from(byte(1, column, k) as i8))
        }) as u32
    };
    let result = |lane: usize, j: usize| sum(lane / 4, lane % 4 * 2 + j, sources[2 + j][lane]);
    [0, 1].map(|j| std::array::from_fn(|lane| result(lane, j).into()))
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
                let entry = &self.entries[launch.kernel.name()];
                let blocks = launch.kernel.warps(self.batch).div_ceil(BLOCK_WARPS.into()) as u32;
                for block in 0..blocks {
                    for warp in 0..BLOCK_WARPS {
                        Warp::new(entry, block, warp).run(entry, &mut self.memories, &parameters);
                    }
                }
            }
        }
        Ok(())
    }
}
