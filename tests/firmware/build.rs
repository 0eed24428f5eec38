//! Memory layout and linker arguments of the board that `WAFT_BOARD` names.

use std::path::PathBuf;
use std::{env, fs};

/// Memory of its own for the model, where that of the code has no room for one: the board's and its flash.
const MODEL_MEMORY: (&str, &str) = ("mps3-an547", "ORIGIN = 0x38000000, LENGTH = 8M");

/// Cortex-M boards: name, code and data memory.
const CORTEX_M: [(&str, &str, &str); 5] = [
    ("mps2-an385", "ORIGIN = 0x00000000, LENGTH = 4M", "ORIGIN = 0x20000000, LENGTH = 4M"),
    ("mps2-an386", "ORIGIN = 0x00000000, LENGTH = 4M", "ORIGIN = 0x20000000, LENGTH = 4M"),
    ("mps2-an500", "ORIGIN = 0x00000000, LENGTH = 4M", "ORIGIN = 0x20000000, LENGTH = 4M"),
    // The secure aliases of the second SSRAM and of the third.
    ("mps2-an505", "ORIGIN = 0x10000000, LENGTH = 4M", "ORIGIN = 0x38000000, LENGTH = 2M"),
    ("mps3-an547", "ORIGIN = 0x00000000, LENGTH = 512K", "ORIGIN = 0x20000000, LENGTH = 512K"),
];

/// Machines that are loaded into memory: name and its start.
const LOADED: [(&str, &str); 2] = [("riscv-virt", "0x80000000"), ("aarch64-virt", "0x40100000")];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(model_memory)");
    println!("cargo::rerun-if-env-changed=WAFT_MODEL_FILE");
    println!("cargo::rerun-if-env-changed=WAFT_BOARD");
    if let Ok(model) = env::var("WAFT_MODEL_FILE") {
        println!("cargo::rerun-if-changed={model}");
    }
    let board = env::var("WAFT_BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |name: &str, text: String| {
        fs::write(out.join(name), text).expect("OUT_DIR is writable");
        println!("cargo::rustc-link-search={}", out.display());
    };
    let link = |argument: &str| println!("cargo::rustc-link-arg={argument}");
    if let Some((_, code, data)) = CORTEX_M.iter().find(|(name, ..)| *name == board) {
        let (for_model, sections) = if board == MODEL_MEMORY.0 {
            println!("cargo::rustc-cfg=model_memory");
            let sections = "SECTIONS { .model : ALIGN(16) { KEEP(*(.model)); } > MODEL } INSERT AFTER .rodata;\n";
            (format!("  MODEL : {}\n", MODEL_MEMORY.1), sections)
        } else {
            (String::new(), "")
        };
        write("memory.x", format!("MEMORY\n{{\n  FLASH : {code}\n  RAM : {data}\n{for_model}}}\n{sections}"));
        link("-Tlink.x");
        link("--nmagic");
    } else if let Some((_, start)) = LOADED.iter().find(|(name, ..)| *name == board) {
        write(
            "board.x",
            format!(
                "ENTRY(_start)
MEMORY {{ RAM : ORIGIN = {start}, LENGTH = 64M }}
SECTIONS
{{
  .text : {{ KEEP(*(.init)) *(.text .text.*) }} > RAM
  .rodata : ALIGN(16) {{ *(.rodata .rodata.* .srodata .srodata.*) }} > RAM
  .data : ALIGN(16) {{ *(.data .data.* .sdata .sdata.*) }} > RAM
  .bss (NOLOAD) : ALIGN(16) {{ __bss_start = .; *(.sbss .sbss.* .bss .bss.*) . = ALIGN(16); __bss_end = .; }} > RAM
  _stack_start = ORIGIN(RAM) + LENGTH(RAM);
  /DISCARD/ : {{ *(.eh_frame .eh_frame.*) }}
}}
"
            ),
        );
        link("-Tboard.x");
    } else if board == "linux" {
        link("-nostartfiles");
        link("-static");
        link("-no-pie");
    } else {
        assert_eq!(board, "wasm", "WAFT_BOARD names no board");
    }
}
