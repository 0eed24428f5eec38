//! A Linux process without a C library: proves that the core needs none.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicUsize, Ordering};

const SYS_WRITE: usize = 1;
const SYS_EXIT: usize = 60;

static STACK: AtomicUsize = AtomicUsize::new(0);

/// The kernel leaves the number of arguments and their addresses at the stack pointer.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("mov rdi, rsp", "and rsp, -16", "call {entry}", entry = sym entry)
}

extern "C" fn entry(stack: usize) -> ! {
    STACK.store(stack, Ordering::Relaxed);
    exit(crate::main())
}

fn call(number: usize, first: usize, second: usize, third: usize) -> usize {
    let result;
    // SAFETY: write and exit touch no memory but what write is given to read.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") first, in("rsi") second, in("rdx") third,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Prints text.
pub fn print(text: &str) {
    call(SYS_WRITE, 1, text.as_ptr() as usize, text.len());
}

/// The first argument.
pub fn command_line(buffer: &mut [u8]) -> &[u8] {
    let stack = STACK.load(Ordering::Relaxed) as *const usize;
    // SAFETY: argc, then that many addresses of text that ends with a zero byte.
    unsafe {
        if *stack < 2 {
            return &[];
        }
        let text = *stack.add(2) as *const u8;
        let mut len = 0;
        for (i, byte) in buffer.iter_mut().enumerate() {
            *byte = *text.add(i);
            if *byte == 0 {
                break;
            }
            len = i + 1;
        }
        buffer.get(..len).unwrap_or(&[])
    }
}

/// Ends the process.
pub fn exit(ok: bool) -> ! {
    loop {
        call(SYS_EXIT, usize::from(!ok), 0, 0);
    }
}

/// A process has no exact counter.
pub fn start_counter() {}

/// A process has no exact counter.
pub fn instructions() -> u64 {
    0
}

/// Where the stack begins.
pub fn stack_top() -> usize {
    STACK.load(Ordering::Relaxed)
}

/// What the compiler may call to copy memory.
///
/// # Safety
/// C's contract.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _) };
    to
}

/// What the compiler may call to fill memory.
///
/// # Safety
/// C's contract.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe { asm!("rep stosb", inout("rdi") to => _, inout("rcx") len => _, in("al") value as u8) };
    to
}
