//! A `libcuda` for tests: as much of the driver's interface as the GPU backend uses, so that its calls, arguments, sizes and
//! graphs are tested on machines without a GPU. Kernels are executed by their bodies on the host.
//!
//! It is stricter than a driver: copies, allocations and waits while a stream is captured are errors, memory starts with
//! rubbish, and there is little of it while more is announced, so that running out of it is tested as well.
#![allow(non_snake_case, reason = "named as in the driver's interface")]
#![allow(clippy::missing_safety_doc, reason = "the driver's interface documents its functions")]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;

use waft_kernels::{BLOCK_WARPS, Body, HostMemory, HostWarp, LANES};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_DEVICE: c_int = 101;
const NOT_FOUND: c_int = 500;
const CAPTURE_UNSUPPORTED: c_int = 900;

/// Bytes that can be allocated, and how many are announced as free.
const CAPACITY: usize = 3 << 20;
const ANNOUNCED: usize = 1 << 30;

/// A launch as it was recorded.
#[derive(Clone, Copy)]
struct Recorded {
    kernel: &'static str,
    grid: u32,
    addresses: [u64; 4],
    parameters: u32,
    batch: u32,
}

#[derive(Default)]
struct Driver {
    /// Address and memory of every allocation.
    memories: BTreeMap<u64, Vec<u128>>,
    sizes: BTreeMap<u64, usize>,
    capture: Option<Vec<Recorded>>,
    graphs: Vec<Vec<Recorded>>,
    functions: Vec<&'static str>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

fn with<T>(f: impl FnOnce(&mut Driver) -> T) -> T {
    let mut driver = DRIVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    f(driver.get_or_insert_default())
}

/// A number as one of the driver's handles, which are pointers that nobody follows; never null.
fn handle(number: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(number + 1)
}

fn number(handle: *mut c_void) -> usize {
    handle.addr().wrapping_sub(1)
}

/// Functions that always succeed and change nothing.
macro_rules! nothing {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($argument: $ty),*) -> c_int {
                $(let _ = $argument;)*
                SUCCESS
            }
        )*
    };
}

nothing! {
    cuInit(flags: c_uint);
    cuDevicePrimaryCtxRelease_v2(device: c_int);
    cuCtxSetCurrent(context: *mut c_void);
    cuStreamDestroy_v2(stream: *mut c_void);
    cuGraphDestroy(graph: *mut c_void);
    cuGraphExecDestroy(graph: *mut c_void);
    cuModuleUnload(module: *mut c_void);
}

/// Functions that give out a value.
macro_rules! give {
    ($($name:ident($ty:ty = $value:expr $(, $argument:ident: $other:ty)*);)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(to: *mut $ty $(, $argument: $other)*) -> c_int {
                $(let _ = $argument;)*
                // SAFETY: the caller passes a place for the value.
                unsafe { to.write($value) };
                SUCCESS
            }
        )*
    };
}

give! {
    cuDriverGetVersion(c_int = 12_040);
    cuDeviceGetCount(c_int = 1);
    cuDevicePrimaryCtxRetain(*mut c_void = handle(0), device: c_int);
    cuCtxGetCurrent(*mut c_void = handle(0));
    cuDeviceGetAttribute(c_int = 0, attribute: c_int, device: c_int);
    cuStreamCreate(*mut c_void = handle(0), flags: c_uint);
    cuGetErrorName(*const c_char = c"error of the test driver".as_ptr(), error: c_int);
    cuGetErrorString(*const c_char = c"error of the test driver".as_ptr(), error: c_int);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(to: *mut c_int, ordinal: c_int) -> c_int {
    if ordinal != 0 {
        return INVALID_DEVICE;
    }
    // SAFETY: the caller passes a place for the device.
    unsafe { to.write(0) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(to: *mut c_char, len: c_int, _device: c_int) -> c_int {
    let name = c"test driver without a GPU".to_bytes_with_nul();
    if len < name.len() as c_int {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes room for `len` bytes, and the name has fewer.
    unsafe { to.copy_from_nonoverlapping(name.as_ptr().cast(), name.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(to: *mut *mut c_void, image: *const c_void) -> c_int {
    // SAFETY: text ends in a zero.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
    let names = text.lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('));
    let names: Vec<&'static str> = names.map(|name| &*name.to_string().leak()).collect();
    with(|driver| driver.functions = names);
    // SAFETY: the caller passes a place for the handle.
    unsafe { to.write(handle(0)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(to: *mut *mut c_void, _module: *mut c_void, name: *const c_char) -> c_int {
    // SAFETY: a name ends in a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let Some(place) = with(|driver| driver.functions.iter().position(|known| *known == name)) else { return NOT_FOUND };
    // SAFETY: the caller passes a place for the handle.
    unsafe { to.write(handle(place)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    // SAFETY: the caller passes places for both.
    unsafe {
        free.write(ANNOUNCED);
        total.write(ANNOUNCED);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(to: *mut u64, bytes: usize) -> c_int {
    with(|driver| {
        if driver.capture.is_some() {
            return CAPTURE_UNSUPPORTED;
        }
        if driver.sizes.values().sum::<usize>() + bytes > CAPACITY {
            return OUT_OF_MEMORY;
        }
        let memory = vec![u128::from_ne_bytes([0xA5; 16]); bytes.div_ceil(16)];
        let address = memory.as_ptr().addr() as u64;
        driver.memories.insert(address, memory);
        driver.sizes.insert(address, bytes);
        // SAFETY: the caller passes a place for the address.
        unsafe { to.write(address) };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    with(|driver| match driver.memories.remove(&address) {
        Some(_) => {
            driver.sizes.remove(&address);
            SUCCESS
        }
        None => INVALID_VALUE,
    })
}

impl Driver {
    /// The bytes from an address on, if it lies in an allocation.
    fn bytes(&mut self, address: u64) -> Option<&mut [u8]> {
        let (&start, memory) = self.memories.range_mut(..=address).next_back()?;
        let size = *self.sizes.get(&start)?;
        bytemuck::cast_slice_mut(memory).get_mut(..size)?.get_mut((address - start) as usize..)
    }

    fn copy(&mut self, address: u64, len: usize, f: impl FnOnce(&mut [u8])) -> c_int {
        if self.capture.is_some() {
            return CAPTURE_UNSUPPORTED;
        }
        match self.bytes(address).and_then(|bytes| bytes.get_mut(..len)) {
            Some(bytes) => {
                f(bytes);
                SUCCESS
            }
            None => INVALID_VALUE,
        }
    }

    fn execute(&mut self, launch: Recorded) -> c_int {
        // Each memory is taken out, so that all can be used at once.
        let mut taken = vec![];
        for address in launch.addresses {
            let (Some(memory), Some(&size)) = (self.memories.remove(&address), self.sizes.get(&address)) else {
                return INVALID_VALUE;
            };
            taken.push((memory, size));
        }
        let mut slices = taken.iter_mut().map(|(memory, size)| &mut bytemuck::cast_slice_mut::<_, u8>(memory)[..*size]);
        let (Some(constants), Some(arenas), Some(scratch), Some(state)) =
            (slices.next(), slices.next(), slices.next(), slices.next())
        else {
            return INVALID_VALUE;
        };
        let fits = run(launch, constants, arenas, scratch, state);
        for (address, (memory, _)) in launch.addresses.into_iter().zip(taken) {
            self.memories.insert(address, memory);
        }
        if fits { SUCCESS } else { INVALID_VALUE }
    }
}

/// Executes a kernel by its name; whether there is one and the grid is as large as it needs.
fn run(launch: Recorded, constants: &[u8], arenas: &mut [u8], scratch: &mut [u8], state: &mut [u8]) -> bool {
    let memory = HostMemory::new(constants, arenas, scratch, state);
    let Recorded { kernel, grid, parameters, batch, .. } = launch;
    let tail = &constants[parameters as usize..];
    fn go<B: Body>(memory: HostMemory<'_>, tail: &[u8], grid: u32, batch: u32) -> bool {
        let body: B = bytemuck::pod_read_unaligned(&tail[..size_of::<B>()]);
        let warps = body.warps(batch);
        for index in 0..grid * BLOCK_WARPS {
            if u64::from(index) < warps {
                body.run(memory, HostWarp, index, batch);
            }
        }
        warps <= u64::from(grid * BLOCK_WARPS)
    }
    macro_rules! dispatch {
        ($($name:ident: $body:ty,)*) => {
            match kernel {
                $(stringify!($name) => go::<$body>(memory, tail, grid, batch),)*
                _ => false,
            }
        };
    }
    waft_kernels::kernels!(dispatch)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(address: u64, value: u8, len: usize, _stream: *mut c_void) -> c_int {
    with(|driver| driver.copy(address, len, |bytes| bytes.fill(value)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, len: usize, _stream: *mut c_void) -> c_int {
    // SAFETY: the caller passes `len` bytes.
    with(|driver| {
        driver.copy(to, len, |bytes| unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from.cast(), len) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, len: usize, _stream: *mut c_void) -> c_int {
    // SAFETY: the caller passes room for `len` bytes.
    with(|driver| {
        driver.copy(from, len, |bytes| unsafe { to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), len) })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> c_int {
    with(|driver| if driver.capture.is_some() { CAPTURE_UNSUPPORTED } else { SUCCESS })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(_stream: *mut c_void, _mode: c_uint) -> c_int {
    with(|driver| match driver.capture.replace(vec![]) {
        None => SUCCESS,
        Some(_) => CAPTURE_UNSUPPORTED,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(_stream: *mut c_void, to: *mut *mut c_void) -> c_int {
    let Some(number) = with(|driver| {
        let launches = driver.capture.take()?;
        driver.graphs.push(launches);
        Some(driver.graphs.len() - 1)
    }) else {
        return CAPTURE_UNSUPPORTED;
    };
    // SAFETY: the caller passes a place for the handle.
    unsafe { to.write(handle(number)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(to: *mut *mut c_void, graph: *mut c_void, _flags: u64) -> c_int {
    // SAFETY: the caller passes a place for the handle.
    unsafe { to.write(graph) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(graph: *mut c_void, _stream: *mut c_void) -> c_int {
    with(|driver| {
        let Some(launches) = driver.graphs.get(number(graph)).cloned() else { return INVALID_VALUE };
        launches.into_iter().map(|launch| driver.execute(launch)).find(|&result| result != SUCCESS).unwrap_or(SUCCESS)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> c_int {
    let block = [block_x, block_y, block_z, grid_y, grid_z, shared];
    if block != [BLOCK_WARPS * LANES as u32, 1, 1, 1, 1, 0] || grid_x == 0 || !extra.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the kernels take four addresses and two words, in this order; each argument points to one.
    let (addresses, [parameters, batch]) = unsafe {
        let argument = |place: usize| *arguments.add(place);
        ([0, 1, 2, 3].map(|place| *argument(place).cast::<u64>()), [4, 5].map(|place| *argument(place).cast::<u32>()))
    };
    with(|driver| {
        let Some(&kernel) = driver.functions.get(number(function)) else { return INVALID_VALUE };
        let launch = Recorded { kernel, grid: grid_x, addresses, parameters, batch };
        match &mut driver.capture {
            Some(launches) => {
                launches.push(launch);
                SUCCESS
            }
            None => driver.execute(launch),
        }
    })
}
