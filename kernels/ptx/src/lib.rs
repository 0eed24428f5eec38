//! Entry points of waft's kernels: a GPU's memory and warps around the bodies of `waft-kernels`.
#![no_std]
#![feature(abi_ptx, asm_experimental_arch, stdarch_nvptx)]

use core::arch::asm;
use core::arch::nvptx::{_block_dim_x, _block_idx_x, _thread_idx_x};

use bytemuck::Pod;
use waft_kernels::{Body, LANES, Memory, Space, Tile, Warp};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: stops the kernel; the driver reports it.
    unsafe { core::arch::nvptx::trap() }
}

/// Device addresses of the four memories.
#[derive(Clone, Copy)]
struct Device {
    constants: *const u8,
    arenas: *mut u8,
    scratch: *mut u8,
    state: *mut u8,
}

impl Memory for Device {
    #[inline(always)]
    fn load<T: Pod>(self, space: Space, at: usize) -> T {
        let base = match space {
            Space::Constants => self.constants,
            Space::Arenas => self.arenas,
            Space::Scratch => self.scratch,
            Space::State => self.state,
        };
        // SAFETY: the host allocated each memory for the launch's batch and checked the same accesses on its own memory;
        // addresses are multiples of the alignment, and no other thread writes there.
        unsafe { base.add(at).cast::<T>().read() }
    }

    #[inline(always)]
    fn store<T: Pod>(self, space: Space, at: usize, value: T) {
        let base = match space {
            // Constants are never written.
            Space::Constants => return,
            Space::Arenas => self.arenas,
            Space::Scratch => self.scratch,
            Space::State => self.state,
        };
        // SAFETY: as above; no other thread reads or writes there during the launch.
        unsafe { base.add(at).cast::<T>().write(value) }
    }
}

/// The threads that execute in step with this one.
#[derive(Clone, Copy)]
struct DeviceWarp {
    lane: u32,
}

impl Warp for DeviceWarp {
    type Each<T: Copy> = T;

    #[inline(always)]
    fn each<T: Copy>(self, mut f: impl FnMut(u32) -> T) -> T {
        f(self.lane)
    }

    #[inline(always)]
    fn with<T: Copy>(self, value: T, mut f: impl FnMut(u32, T)) {
        f(self.lane, value);
    }

    #[inline(always)]
    fn exchange(self, value: u32, mask: u32) -> u32 {
        let result;
        // SAFETY: all lanes of the warp come here together: bodies exchange outside of branches that lanes take
        // differently.
        unsafe {
            asm!("shfl.sync.bfly.b32 {}, {}, {}, 31, -1;", out(reg32) result, in(reg32) value, in(reg32) mask);
        }
        result
    }

    #[inline(always)]
    fn broadcast(self, value: f32, lane: u32) -> f32 {
        let result: u32;
        // SAFETY: as above.
        unsafe {
            asm!("shfl.sync.idx.b32 {}, {}, {}, 31, -1;", out(reg32) result, in(reg32) value.to_bits(), in(reg32) lane);
        }
        f32::from_bits(result)
    }

    #[inline(always)]
    fn multiply(self, sums: &mut Tile, activations: [u32; 4], weights: [u32; 2], unsigned: bool) {
        macro_rules! multiply {
            ($types:literal, $(($i:literal, $j:literal))*) => {
                $({
                    let [c0, c1] = sums[$i][$j];
                    let (d0, d1): (i32, i32);
                    // SAFETY: registers only; all lanes of the warp come here together, as in `exchange`.
                    unsafe {
                        asm!(
                            concat!("mma.sync.aligned.m8n8k16.row.col.s32.", $types, ".s32 {{{0}, {1}}}, {{{2}}}, {{{3}}}, {{{4}, {5}}};"),
                            out(reg32) d0, out(reg32) d1, in(reg32) activations[$i], in(reg32) weights[$j],
                            in(reg32) c0, in(reg32) c1, options(pure, nomem, nostack),
                        );
                    }
                    sums[$i][$j] = [d0, d1];
                })*
            };
        }
        // Spelled out, so that sums stay in registers.
        if unsigned {
            multiply!("u8.s8", (0, 0)(0, 1)(1, 0)(1, 1)(2, 0)(2, 1)(3, 0)(3, 1));
        } else {
            multiply!("s8.s8", (0, 0)(0, 1)(1, 0)(1, 1)(2, 0)(2, 1)(3, 0)(3, 1));
        }
    }

    #[inline(always)]
    fn map<T: Copy, U: Copy>(self, value: T, mut f: impl FnMut(T) -> U) -> U {
        f(value)
    }

    #[inline(always)]
    fn zip<T: Copy, U: Copy, V: Copy>(self, left: T, right: U, mut f: impl FnMut(T, U) -> V) -> V {
        f(left, right)
    }
}

/// Runs this thread's part of a kernel.
///
/// # Safety
/// The memories are as the kernel's parameters describe them.
#[inline(always)]
unsafe fn run<B: Body>(memory: Device, parameters: u32, batch: u32) {
    // SAFETY: special registers.
    let (block, width, thread) = unsafe { (_block_idx_x(), _block_dim_x(), _thread_idx_x()) };
    let (block, width, thread) = (block as u32, width as u32, thread as u32);
    let index = block * (width / LANES as u32) + thread / LANES as u32;
    let warp = DeviceWarp { lane: thread % LANES as u32 };
    let body: B = memory.load(Space::Constants, parameters as usize);
    if u64::from(index) < body.warps(batch) {
        body.run(memory, warp, index, batch);
    }
}

macro_rules! entries {
    ($($name:ident: $body:ty,)*) => {
        $(
            /// See the body.
            ///
            /// # Safety
            /// Called by the driver, with device addresses.
            #[unsafe(no_mangle)]
            pub unsafe extern "ptx-kernel" fn $name(
                constants: *const u8,
                arenas: *mut u8,
                scratch: *mut u8,
                state: *mut u8,
                parameters: u32,
                batch: u32,
            ) {
                // SAFETY: the host launches with memories that fit.
                unsafe { run::<$body>(Device { constants, arenas, scratch, state }, parameters, batch) }
            }
        )*
    };
}

waft_kernels::kernels!(entries);
