//! The few semihosting calls that the firmware needs (Arm, "Semihosting for AArch32 and AArch64"; "RISC-V Semihosting").

use core::arch::asm;

const SYS_WRITEC: usize = 0x03;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT: usize = 0x18;
const APPLICATION_EXIT: usize = 0x2_0026;

fn call(operation: usize, parameter: usize) -> usize {
    let result;
    // SAFETY: the debugger reads and writes only what the parameter points to, which the callers below own.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("bkpt #0xAB", inlateout("r0") operation => result, in("r1") parameter, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("hlt #0xF000", inlateout("x0") operation => result, in("x1") parameter, options(nostack));
    }
    // SAFETY: as above; the two shifts mark the break as a call, and none of the three may be compressed.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            ".balign 16",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inlateout("a0") operation => result,
            in("a1") parameter,
            options(nostack)
        );
    }
    result
}

/// Prints text.
pub fn print(text: &str) {
    for byte in text.bytes() {
        call(SYS_WRITEC, (&raw const byte) as usize);
    }
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
    let code = [APPLICATION_EXIT, usize::from(!ok)];
    loop {
        if cfg!(target_pointer_width = "64") {
            call(SYS_EXIT, code.as_ptr() as usize);
        } else {
            call(SYS_EXIT, if ok { APPLICATION_EXIT } else { 0 });
        }
    }
}
