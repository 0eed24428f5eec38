//! What differs between machines: the entry, text in and out, and a counter of instructions.
//!
//! Each module has `print`, `command_line`, `start_counter`, `instructions` in units of its own (the build side knows how many
//! instructions one is), and `stack_top`, and calls [`crate::main`].

#[cfg(all(target_os = "none", target_arch = "arm"))]
mod cortex_m;
#[cfg(all(target_os = "none", target_arch = "arm"))]
pub use cortex_m::*;

#[cfg(target_arch = "riscv32")]
mod riscv;
#[cfg(target_arch = "riscv32")]
pub use riscv::*;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::*;

#[cfg(target_arch = "x86_64")]
mod linux;
#[cfg(target_arch = "x86_64")]
pub use linux::*;

#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(target_family = "wasm")]
pub use wasm::*;

#[cfg(target_os = "none")]
mod semihosting;
#[cfg(target_os = "none")]
pub use semihosting::{command_line, exit, print};
