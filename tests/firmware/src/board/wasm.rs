//! A WebAssembly instance: the embedder writes the command line into `line`, calls `run`, and is handed text to print.

use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Longest command line.
const LINE: usize = 128;

static mut TEXT: [u8; LINE] = [0; LINE];
static LEN: AtomicUsize = AtomicUsize::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    #[link_name = "print"]
    fn host_print(text: *const u8, len: usize);
}

/// Where the command line goes, at most 128 bytes.
#[unsafe(no_mangle)]
extern "C" fn line() -> *mut u8 {
    addr_of_mut!(TEXT).cast()
}

/// Draws; 1 if all went well.
#[unsafe(no_mangle)]
extern "C" fn run(len: usize) -> u32 {
    LEN.store(len.min(LINE), Ordering::Relaxed);
    let here = 0u8;
    STACK.store((&raw const here) as usize, Ordering::Relaxed);
    crate::main().into()
}

/// Prints text.
pub fn print(text: &str) {
    // SAFETY: the embedder reads the text.
    unsafe { host_print(text.as_ptr(), text.len()) }
}

/// What the embedder has written.
pub fn command_line(buffer: &mut [u8]) -> &[u8] {
    let len = LEN.load(Ordering::Relaxed);
    for (i, byte) in buffer.iter_mut().take(len).enumerate() {
        // SAFETY: within the static, which nobody writes while `run` runs.
        *byte = unsafe { addr_of_mut!(TEXT).cast::<u8>().add(i).read() };
    }
    buffer.get(..len).unwrap_or(&[])
}

/// Traps.
pub fn exit(_: bool) -> ! {
    core::arch::wasm32::unreachable()
}

/// An instance has no exact counter.
pub fn start_counter() {}

/// An instance has no exact counter.
pub fn instructions() -> u64 {
    0
}

/// Where the stack begins.
pub fn stack_top() -> usize {
    STACK.load(Ordering::Relaxed)
}
