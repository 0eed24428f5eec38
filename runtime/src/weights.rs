//! Weights that are not addressable memory: read piece by piece into a window of the arena while the model runs.

use crate::error::RunError;
use crate::format::{Chunks, Conv2d, crc32};
use crate::ops::{Context, conv2d};

/// Bytes that one step reads at most, and the granularity of reading: offsets and lengths are multiples of 16.
pub const PIECE: usize = 512;

/// Where streamed weights come from. The weights' own file is read in the order in which it is written, from its
/// beginning, once for each network call; only after an error does an offset go back.
pub trait WeightSource {
    /// What can go wrong. The session reports [`RunError::WeightsUnreadable`]; keep the details in the source.
    type Error;

    /// Copies the bytes from `offset` of the weights' file on into the beginning of `into`, and returns how many: fewer
    /// than asked for, or none, if they have not arrived yet, in which case the next step asks for the rest.
    ///
    /// # Errors
    /// If they cannot be read. The next step asks again.
    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Self::Error>;

    /// Whether there is anything to read at all; `false` leaves the code for it out of the program.
    const STREAMS: bool = true;
}

/// No weights of their own: the model file carries them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident;

impl WeightSource for Resident {
    type Error = core::convert::Infallible;

    fn read(&mut self, _offset: u32, _into: &mut [u8]) -> Result<usize, Self::Error> {
        Ok(0)
    }

    const STREAMS: bool = false;
}

/// A source that is lent to a run.
impl<W: WeightSource> WeightSource for &mut W {
    type Error = W::Error;

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).read(offset, into)
    }

    const STREAMS: bool = W::STREAMS;
}

/// Addressable memory, for tests and for hosts.
impl WeightSource for &[u8] {
    type Error = ();

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
        let from = self.get(offset as usize..).and_then(|rest| rest.get(..into.len())).ok_or(())?;
        into.copy_from_slice(from);
        Ok(into.len())
    }
}

/// NOR flash behind `embedded-storage`.
#[cfg(feature = "embedded-storage")]
#[derive(Debug)]
pub struct Flash<F> {
    flash: F,
    base: u32,
}

#[cfg(feature = "embedded-storage")]
impl<F: embedded_storage::nor_flash::ReadNorFlash> Flash<F> {
    /// The weights' file starts at byte `base` of the flash, a multiple of its `READ_SIZE`, which divides 16.
    pub const fn new(flash: F, base: u32) -> Self {
        const { assert!(F::READ_SIZE <= 16 && 16usize.is_multiple_of(F::READ_SIZE)) }
        Self { flash, base }
    }

    /// The flash.
    pub fn into_inner(self) -> F {
        self.flash
    }
}

#[cfg(feature = "embedded-storage")]
impl<F: embedded_storage::nor_flash::ReadNorFlash> WeightSource for Flash<F> {
    type Error = F::Error;

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, F::Error> {
        self.flash.read(self.base.wrapping_add(offset), into)?;
        Ok(into.len())
    }
}

/// A file behind `embedded-io`, on an SD card for example.
#[cfg(feature = "embedded-io")]
#[derive(Debug)]
pub struct File<R> {
    file: R,
    base: u64,
    at: Option<u64>,
}

#[cfg(feature = "embedded-io")]
impl<R: embedded_io::Read + embedded_io::Seek> File<R> {
    /// The weights start at byte `base` of the file.
    pub const fn new(file: R, base: u64) -> Self {
        Self { file, base, at: None }
    }

    /// The file.
    pub fn into_inner(self) -> R {
        self.file
    }
}

#[cfg(feature = "embedded-io")]
impl<R: embedded_io::Read + embedded_io::Seek> WeightSource for File<R> {
    type Error = R::Error;

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, R::Error> {
        let from = self.base.saturating_add(offset.into());
        if self.at != Some(from) {
            self.at = None;
            self.file.seek(embedded_io::SeekFrom::Start(from))?;
        }
        self.at = None;
        let read = self.file.read(into)?;
        self.at = Some(from.saturating_add(read as u64));
        Ok(read)
    }
}

/// A line behind `embedded-io`, a UART for example, whose other end sends the weights' file again and again, once for each
/// network call. It cannot go back: after an error the run has to be started anew, and the other end with it.
#[cfg(feature = "embedded-io")]
#[derive(Debug)]
pub struct Line<R> {
    line: R,
    at: u32,
}

/// Why a [`Line`] gives no weights.
#[cfg(feature = "embedded-io")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError<E> {
    /// The line's own error.
    Line(E),
    /// The bytes asked for are not the next ones.
    OutOfOrder,
}

#[cfg(feature = "embedded-io")]
impl<R: embedded_io::Read> Line<R> {
    /// The next byte of the line is the first of the weights' file.
    pub const fn new(line: R) -> Self {
        Self { line, at: 0 }
    }

    /// The line.
    pub fn into_inner(self) -> R {
        self.line
    }
}

#[cfg(feature = "embedded-io")]
impl<R: embedded_io::Read> WeightSource for Line<R> {
    type Error = LineError<R::Error>;

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, Self::Error> {
        // Each call starts again at the beginning.
        if offset != 0 && offset != self.at {
            return Err(LineError::OutOfOrder);
        }
        let read = self.line.read(into).map_err(LineError::Line)?;
        self.at = offset.saturating_add(read as u32);
        Ok(read)
    }
}

/// The window that the weights of a convolution pass through, and what a slice needs of them.
pub(crate) struct Window<'a> {
    /// Chunks of the weights.
    chunks: Chunks,
    /// The last chunk that the slice needs.
    needed: u32,
    /// Chunks that the window holds.
    buffers: u32,
    /// First byte of the window in the arena.
    offset: u64,
    /// First byte of the weights in their file.
    weights: u64,
    /// The CRC-32 of each chunk.
    checks: &'a [u32],
}

impl<'a> Window<'a> {
    pub(crate) fn bind(context: &Context<'a>, op: &Conv2d, slice: u32) -> Option<Self> {
        let window = context.tensor(op.window)?;
        let output = context.tensor(op.output)?;
        // Without the feature nothing is shuffled.
        let outputs = if cfg!(feature = "unet1d") { op.computed(*output) } else { *output }.channels;
        let inputs = context.tensor(op.scratch)?.channels;
        let chunks = op.chunks(outputs.into(), inputs.into())?;
        Some(Self {
            needed: conv2d::chunk(context, op, slice)? as u32,
            buffers: chunks.buffers(window.bytes.into()) as u32,
            offset: window.offset.into(),
            weights: op.weights.into(),
            checks: context.data(op.checks, chunks.count as usize)?,
            chunks,
        })
    }

    /// Bytes of a chunk.
    fn size(&self, chunk: u32) -> u32 {
        let last = u64::from(chunk) + 1 == self.chunks.count;
        (if last { self.chunks.last_bytes } else { self.chunks.bytes }) as u32
    }

    /// The first byte of a chunk's place in the arena, and of the chunk in the weights' file.
    fn place(&self, chunk: u32) -> [u64; 2] {
        let buffer = chunk.checked_rem(self.buffers).unwrap_or(0);
        [self.offset + u64::from(buffer) * self.chunks.bytes, self.weights + u64::from(chunk) * self.chunks.bytes]
    }
}

/// How far the weights of the current operation have come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loading {
    /// Chunks that are complete.
    ready: u32,
    /// Bytes of the next one.
    loaded: u32,
    /// Its CRC register, inverted, so that it starts as zero.
    crc: u32,
}

impl Loading {
    /// Reads one more piece if the window has room for it; whether the chunk that the slice of operation `op` needs is
    /// complete.
    pub(crate) fn advance<W: WeightSource>(
        &mut self,
        op: u16,
        window: &Window<'_>,
        arena: &mut [u8],
        source: &mut W,
    ) -> Result<bool, RunError> {
        // Chunks are read in ascending order; there is a check for each.
        if self.ready < window.needed.saturating_add(window.buffers)
            && let Some(&check) = window.checks.get(self.ready as usize)
        {
            let size = window.size(self.ready);
            let [place, offset] = window.place(self.ready).map(|start| start + u64::from(self.loaded));
            let (place, offset) = (place as usize, offset as u32);
            let len = (size.saturating_sub(self.loaded) as usize).min(PIECE);
            let into = arena.get_mut(place..place + len).ok_or(RunError::Corrupt { op })?;
            let read = source.read(offset, into).map_err(|_| RunError::WeightsUnreadable { offset })?;
            let arrived = into.get(..read).unwrap_or(into);
            self.crc = !crc32(!self.crc, arrived);
            self.loaded += arrived.len() as u32;
            if self.loaded >= size {
                let intact = check == self.crc;
                (self.loaded, self.crc) = (0, 0);
                if !intact {
                    return Err(RunError::WeightsDamaged { op, chunk: self.ready });
                }
                self.ready += 1;
            }
        }
        Ok(self.ready > window.needed)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::noise::philox;

    /// Where the window begins in the arena, and the weights in their file.
    const WINDOW: usize = 32;
    const WEIGHTS: usize = 48;

    /// A file's bytes in bursts, every other read nothing; what was asked for, in order.
    struct Source {
        file: Vec<u8>,
        burst: usize,
        asked: Vec<[usize; 2]>,
    }

    impl WeightSource for Source {
        type Error = ();

        fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<usize, ()> {
            self.asked.push([offset as usize, into.len()]);
            let len = if self.asked.len().is_multiple_of(2) { 0 } else { into.len().min(self.burst) };
            into[..len].copy_from_slice(&self.file[offset as usize..][..len]);
            Ok(len)
        }
    }

    fn source(chunks: &Chunks, burst: usize) -> Source {
        let len = WEIGHTS + chunks.total() as usize;
        let file = (0..len as u32).map(|i| philox([7, 0], [i, 0, 0, 0])[0] as u8).collect();
        Source { file, burst, asked: std::vec![] }
    }

    /// The bytes of a chunk in the file.
    fn chunk(chunks: &Chunks, index: u64) -> core::ops::Range<usize> {
        let first = WEIGHTS + (index * chunks.bytes) as usize;
        first..first + (if index + 1 == chunks.count { chunks.last_bytes } else { chunks.bytes }) as usize
    }

    fn checks(chunks: &Chunks, file: &[u8]) -> Vec<u32> {
        (0..chunks.count).map(|index| !crc32(!0, &file[chunk(chunks, index)])).collect()
    }

    /// Each slice finds its chunk in the window's place for it, read in order, once, a piece at a time, and never more than
    /// the window holds beyond what is in use.
    #[test]
    fn chunks_come_in_order_as_far_as_the_window_reaches() {
        for (count, buffers) in [(1, 1), (3, 1), (3, 2), (5, 2), (4, 3), (2, 2)] {
            let chunks = Chunks { count, bytes: 1200, last_bytes: 700 };
            for burst in [100, usize::MAX] {
                let mut source = source(&chunks, burst);
                let checks = checks(&chunks, &source.file);
                let mut arena = std::vec![0xA5; WINDOW + buffers as usize * 1200 + 8];
                let mut loading = Loading::default();
                // Two slices use each chunk.
                for needed in (0..count as u32).flat_map(|chunk| [chunk; 2]) {
                    let (offset, weights) = (WINDOW as u64, WEIGHTS as u64);
                    let window = Window { chunks, needed, buffers, offset, weights, checks: &checks };
                    while !loading.advance(3, &window, &mut arena, &mut source).expect("intact") {}
                    let from = chunk(&chunks, needed.into());
                    let place = WINDOW + (needed % buffers) as usize * 1200;
                    assert_eq!(arena[place..place + from.len()], source.file[from], "chunk {needed} of {count}");
                    let [reach, _] = *source.asked.last().expect("asked");
                    let ahead = (u64::from(needed) + u64::from(buffers)).min(count);
                    assert!(reach < chunk(&chunks, ahead - 1).end, "beyond chunk {ahead}");
                }
                assert!(u64::from(loading.ready) <= count);
                assert!(arena[..WINDOW].iter().chain(&arena[WINDOW + buffers as usize * 1200..]).all(|&b| b == 0xA5));
                let pieces = source.asked.windows(2).all(|pair| pair[1][0] >= pair[0][0]);
                assert!(pieces && source.asked.iter().all(|&[_, len]| (1..=PIECE).contains(&len)));
            }
        }
    }

    /// While a chunk is in use, the next one comes into the rest of the window; a slice then need not wait.
    #[test]
    fn a_window_for_two_chunks_reads_ahead() {
        let chunks = Chunks { count: 3, bytes: 1024, last_bytes: 1024 };
        for (buffers, ahead) in [(1, [1, 2]), (2, [2, 3])] {
            let mut source = source(&chunks, usize::MAX);
            let checks = checks(&chunks, &source.file);
            let mut arena = std::vec![0; WINDOW + 2048];
            let mut loading = Loading::default();
            for (needed, ahead) in [0, 1].into_iter().zip(ahead) {
                let (offset, weights) = (WINDOW as u64, WEIGHTS as u64);
                let window = Window { chunks, needed, buffers, offset, weights, checks: &checks };
                // Each chunk is two pieces, and every other read brings nothing.
                for _ in 0..20 {
                    loading.advance(3, &window, &mut arena, &mut source).expect("intact");
                }
                assert_eq!(loading.ready, ahead, "{buffers} chunks at once, chunk {needed} in use");
            }
        }
    }

    /// What is damaged or unreadable is said by chunk and offset, and read again.
    #[test]
    fn what_goes_wrong_is_asked_for_again() {
        let chunks = Chunks { count: 2, bytes: 1024, last_bytes: 600 };
        let mut source = source(&chunks, usize::MAX);
        let mut checks = checks(&chunks, &source.file);
        checks[1] ^= 1;
        let mut arena = std::vec![0; WINDOW + 2048];
        let mut loading = Loading::default();
        let (offset, weights) = (WINDOW as u64, WEIGHTS as u64);
        let mut run = |checks: &[u32], source: &mut Source| {
            let window = Window { chunks, needed: 1, buffers: 2, offset, weights, checks };
            loop {
                match loading.advance(3, &window, &mut arena, source) {
                    Ok(false) => {}
                    found => break found,
                }
            }
        };
        assert_eq!(run(&checks, &mut source), Err(RunError::WeightsDamaged { op: 3, chunk: 1 }));
        checks[1] ^= 1;
        let before = source.asked.len();
        assert_eq!(run(&checks, &mut source), Ok(true));
        assert_eq!(source.asked[before][0], chunk(&chunks, 1).start, "the chunk from its beginning");

        struct Broken;
        impl WeightSource for Broken {
            type Error = ();

            fn read(&mut self, _offset: u32, _into: &mut [u8]) -> Result<usize, ()> {
                Err(())
            }
        }
        let window = Window { chunks, needed: 0, buffers: 2, offset, weights, checks: &checks };
        let error = Loading::default().advance(3, &window, &mut arena, &mut Broken);
        assert_eq!(error, Err(RunError::WeightsUnreadable { offset: WEIGHTS as u32 }));
        let beyond = Loading::default().advance(3, &window, &mut arena[..WINDOW + 100], &mut source);
        assert_eq!(beyond, Err(RunError::Corrupt { op: 3 }));
    }
}
