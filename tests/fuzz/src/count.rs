//! What became of the inputs: a mutator whose models are always refused proves little.

/// What became of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No header of this version, or cut.
    Unreadable,
    /// Refused by the check of a field, by number.
    Refused(usize),
    /// Valid, but larger than what is run.
    Large,
    /// Valid; its run was refused or took too long.
    Unfinished,
    /// Valid and run to its end.
    Finished,
}

/// Between two lines.
const EVERY: u64 = 250_000;

/// How many came to what.
#[derive(Default)]
pub struct Counts {
    all: u64,
    unreadable: u64,
    refused: [u64; 16],
    large: u64,
    unfinished: u64,
    finished: u64,
}

impl Counts {
    /// One more; now and then a line on stderr.
    pub fn add(&mut self, fate: Fate) {
        self.all += 1;
        *match fate {
            Fate::Unreadable => &mut self.unreadable,
            Fate::Refused(field) => &mut self.refused[field % 16],
            Fate::Large => &mut self.large,
            Fate::Unfinished => &mut self.unfinished,
            Fate::Finished => &mut self.finished,
        } += 1;
        if self.all.is_multiple_of(EVERY) {
            let Self { all, unreadable, refused, large, unfinished, finished } = self;
            let percent = 100.0 * *finished as f64 / *all as f64;
            eprintln!(
                "inputs {all}: run to the end {finished} ({percent:.1} %), valid but not ended {unfinished}, valid but large \
                 {large}, refused by field {refused:?}, unreadable {unreadable}"
            );
        }
    }
}
