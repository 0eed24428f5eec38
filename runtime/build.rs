//! Chooses the kernels, see `src/arch/mod.rs`: sets the `cfg` of each instruction family that the target has.

use std::env;

/// What cargo says about the target.
struct Target {
    triple: String,
    flags: String,
    /// Those that the compiler reports.
    features: String,
    /// Whether the crate's feature of that name is on.
    mve: bool,
}

impl Target {
    /// The DSP extension of Cortex-M. Armv7E-M has it by definition. Armv8-M Mainline has it in all but a few parts, which
    /// say so with `-C target-feature=-dsp`; compilers do not report it here.
    fn has_dsp(&self) -> bool {
        self.triple.starts_with("thumbv7em") || self.triple.starts_with("thumbv8m.main") && !self.flags.contains("-dsp")
    }

    /// The vector extension of Armv8.1-M: asked for by the feature `mve`, or by naming it or a core that has it to the
    /// compiler, which does not report it here. Only targets of hard floats have the registers by their calling convention.
    fn has_mve(&self) -> bool {
        let named = ["cortex-m55", "cortex-m85", "+mve"].iter().any(|name| self.flags.contains(name));
        self.triple.starts_with("thumbv8m.main") && self.triple.ends_with("hf") && (self.mve || named)
    }

    /// A floating-point extension of Armv7E-M or Armv8-M Mainline, which converts half precision.
    fn has_half_conversions(&self) -> bool {
        let has_extension = self.triple.starts_with("thumbv7em") || self.triple.starts_with("thumbv8m.main");
        has_extension && self.triple.ends_with("eabihf")
    }

    /// Cores whose registers hold one number: no instruction adds or multiplies two.
    fn is_scalar(&self) -> bool {
        ["thumbv6m", "thumbv7m", "riscv32"].iter().any(|name| self.triple.starts_with(name))
    }

    /// Cores whose products have 32 bits: Armv6-M, Armv8-M Baseline.
    fn lacks_long_multiply(&self) -> bool {
        self.triple.starts_with("thumbv6m") || self.triple.starts_with("thumbv8m.base")
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let target = Target {
        triple: variable("TARGET"),
        flags: variable("CARGO_ENCODED_RUSTFLAGS"),
        features: variable("CARGO_CFG_TARGET_FEATURE"),
        mve: env::var_os("CARGO_FEATURE_MVE").is_some(),
    };
    println!(
        "cargo::rustc-check-cfg=cfg(dsp, mve, armv6m, armv7m, riscv, scalar, tile_kernels, sse2, neon, vfp, no_long_multiply)"
    );
    if target.triple.starts_with("thumbv6m") {
        println!("cargo::rustc-cfg=armv6m");
    }
    if target.triple.starts_with("thumbv7m") {
        println!("cargo::rustc-cfg=armv7m");
    }
    let has = |feature| target.features.split(',').any(|found| found == feature);
    if target.triple.starts_with("aarch64") && has("neon") {
        println!("cargo::rustc-cfg=neon");
    }
    if target.triple.starts_with("x86_64") && has("sse2") {
        println!("cargo::rustc-cfg=sse2");
    }
    if target.triple.starts_with("riscv32") {
        println!("cargo::rustc-cfg=riscv");
    }
    if target.lacks_long_multiply() {
        println!("cargo::rustc-cfg=no_long_multiply");
    }
    if target.has_mve() {
        println!("cargo::rustc-cfg=mve");
    }
    if target.has_half_conversions() {
        println!("cargo::rustc-cfg=vfp");
    }
    if target.has_dsp() {
        println!("cargo::rustc-cfg=dsp");
    }
    if target.is_scalar() {
        println!("cargo::rustc-cfg=scalar");
    }
    if target.has_dsp() || target.is_scalar() {
        println!("cargo::rustc-cfg=tile_kernels");
    }
}
