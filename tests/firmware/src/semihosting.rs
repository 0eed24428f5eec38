//! The few semihosting calls that the firmware needs (Arm, "Semihosting for AArch32 and AArch64").

use core::arch::asm;

const SYS_WRITE0: usize = 0x04;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;

fn call(operation: usize, parameter: usize) -> usize {
    let result;
    // SAFETY: the debugger reads and writes only what the parameter points to, which the callers below own.
    unsafe {
        asm!("bkpt #0xAB", inlateout("r0") operation => result, in("r1") parameter, options(nostack));
    }
    result
}

/// Prints text that ends with a zero byte.
pub fn print(text: &str) {
    if text.ends_with('\0') {
        call(SYS_WRITE0, text.as_ptr() as usize);
    }
}

/// Prints two hexadecimal digits.
pub fn print_hex(byte: u8) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    let text = [digit(byte >> 4), digit(byte & 15), 0];
    call(SYS_WRITE0, text.as_ptr() as usize);
}

/// Prints a key that ends with a zero byte, a number and a line feed.
pub fn print_value(key: &str, value: u32) {
    print(key);
    for byte in value.to_be_bytes() {
        print_hex(byte);
    }
    print("\n\0");
}

/// The command line without its first word, which is the program's name.
pub fn command_line(buffer: &mut [u8]) -> &[u8] {
    let mut block = [buffer.as_mut_ptr() as usize, buffer.len()];
    if call(SYS_GET_CMDLINE, block.as_mut_ptr() as usize) != 0 {
        return &[];
    }
    // SAFETY: the call has written it.
    let len = unsafe { block.as_ptr().add(1).read_volatile() };
    let line = buffer.get(..len).unwrap_or(&[]);
    let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    line.get(end..).unwrap_or(&[])
}

/// Ends the emulator, with code 0 if all went well.
pub fn exit(ok: bool) -> ! {
    loop {
        call(SYS_EXIT, if ok { APPLICATION_EXIT } else { 0 });
    }
}
