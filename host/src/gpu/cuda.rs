//! The GPU backend, through the driver, which is looked for when it is needed: a binary with this module runs on
//! machines without one, and says so.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
    sys,
};
use cudarc::nvrtc::Ptx;
use waft_kernels::{BLOCK_WARPS, Kernel, LANES, PTX, Space};

use super::{Device, GpuError, Launch, Program};

/// Share of the free memory that a batch may take.
const SHARE: f64 = 0.8;
/// Most pictures of a batch: more fill no GPU better.
const MOST: usize = 8192;

/// A GPU.
pub struct Cuda {
    name: String,
    driver: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
    /// In the order of [`Space`].
    memories: Option<[CudaSlice<u8>; 4]>,
    batch: u32,
    /// The list of launches that was captured last, by the places of their parameters.
    graph: Option<(Vec<u32>, CudaGraph)>,
}

impl Cuda {
    /// Opens a device by its number and loads the kernels.
    ///
    /// # Errors
    /// If there is no driver or no such device, or the driver refuses the kernels.
    pub fn open(ordinal: usize) -> Result<Self, GpuError> {
        // SAFETY: loads the library, whose initializers have no preconditions, and unloads it.
        let present = unsafe { sys::is_culib_present() };
        if !present {
            return Err(GpuError::NoDevice("the driver's library (libcuda) was not found".into()));
        }
        let missing = |error: DriverError| GpuError::NoDevice(describe(error));
        let context = CudaContext::new(ordinal).map_err(missing)?;
        let name = context.name().map_err(missing)?;
        let driver = driver_version();
        let refused = |error| GpuError::Refused { device: name.clone(), driver: driver.clone(), what: describe(error) };
        // SAFETY: everything is used in one stream, in order; tracking would put waits for events from outside into
        // captured graphs, which drivers refuse.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(refused)?;
        let module = context.load_module(Ptx::from_src(PTX)).map_err(refused)?;
        let mut functions = HashMap::new();
        for &kernel in Kernel::NAMES {
            functions.insert(kernel, module.load_function(kernel).map_err(refused)?);
        }
        Ok(Self { name, driver, context, stream, functions, memories: None, batch: 0, graph: None })
    }

    fn failed(&self, call: &'static str) -> impl Fn(DriverError) -> GpuError + use<> {
        let (device, driver, batch) = (self.name.clone(), self.driver.clone(), self.batch);
        move |error| {
            let device = device.clone();
            if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return GpuError::OutOfMemory { device, batch };
            }
            GpuError::Driver { device, driver: driver.clone(), call, what: describe(error) }
        }
    }

    /// Gives all memory back to the driver.
    fn release(&mut self) -> Result<(), GpuError> {
        self.graph = None;
        self.memories = None;
        // Memory is freed in the order of the stream.
        self.stream.synchronize().map_err(self.failed("cuStreamSynchronize"))
    }

    fn memory(&mut self, space: Space) -> Result<&mut CudaSlice<u8>, GpuError> {
        let unprepared = || GpuError::Unfit("the device was not prepared for a program".into());
        self.memories.as_mut().and_then(|memories| memories.get_mut(space as usize)).ok_or_else(unprepared)
    }

    /// Puts launches into the stream.
    fn enqueue(&self, launches: &[Launch]) -> Result<(), GpuError> {
        let unprepared = || GpuError::Unfit("the device was not prepared for a program".into());
        let memories = self.memories.as_ref().ok_or_else(unprepared)?;
        // Addresses as plain numbers: all work is in one stream, so nothing has to be tracked, and a stream that is
        // captured allows no tracking.
        let [constants, arenas, scratch, state] = [0, 1, 2, 3].map(|i| memories[i].device_ptr(&self.stream).0);
        for launch in launches {
            let function = &self.functions[launch.kernel.name()];
            let blocks = launch.kernel.warps(self.batch).div_ceil(BLOCK_WARPS.into());
            let grid = u32::try_from(blocks).ok().filter(|&blocks| blocks <= i32::MAX as u32).ok_or_else(|| {
                GpuError::Unfit(format!("a batch of {} pictures is too large; use --batch", self.batch))
            })?;
            let config = LaunchConfig {
                grid_dim: (grid, 1, 1),
                block_dim: (BLOCK_WARPS * LANES as u32, 1, 1),
                shared_mem_bytes: 0,
            };
            let mut builder = self.stream.launch_builder(function);
            builder.arg(&constants).arg(&arenas).arg(&scratch).arg(&state).arg(&launch.parameters).arg(&self.batch);
            // SAFETY: the arguments are those of every entry in `kernels/ptx`, and the memories have the sizes that the
            // program asks for at this batch.
            unsafe { builder.launch(config) }.map_err(self.failed("cuLaunchKernel"))?;
        }
        Ok(())
    }
}

impl Device for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn driver(&self) -> Option<String> {
        Some(self.driver.clone())
    }

    fn capacity(&mut self, program: &Program) -> Result<u32, GpuError> {
        self.release()?;
        let (free, _) = self.context.mem_get_info().map_err(self.failed("cuMemGetInfo"))?;
        let one = program.strides.arena as usize + program.strides.scratch as usize + program.state_bytes(1);
        let fit = (free as f64 * SHARE) as usize / one.max(1);
        Ok(fit.clamp(1, MOST) as u32)
    }

    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError> {
        self.release()?;
        self.batch = batch;
        let pictures = batch as usize;
        let failed = self.failed("cuMemAlloc");
        let zeros = |bytes: usize| self.stream.alloc_zeros::<u8>(bytes).map_err(&failed);
        let constants = self.stream.clone_htod(&program.constants).map_err(&failed)?;
        let arenas = zeros(program.strides.arena as usize * pictures)?;
        let scratch = zeros(program.strides.scratch as usize * pictures)?;
        let state = zeros(program.state_bytes(batch))?;
        self.memories = Some([constants, arenas, scratch, state]);
        Ok(())
    }

    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError> {
        let (failed, stream) = (self.failed("cuMemcpyHtoD"), self.stream.clone());
        let mut view = self.memory(space)?.slice_mut(at..at + bytes.len());
        stream.memcpy_htod(bytes, &mut view).map_err(failed)
    }

    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        let (failed, stream) = (self.failed("cuMemcpyDtoH"), self.stream.clone());
        let view = self.memory(space)?.slice(at..at + bytes.len());
        stream.memcpy_dtoh(&view, bytes).map_err(&failed)?;
        stream.synchronize().map_err(failed)
    }

    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError> {
        if times == 1 {
            return self.enqueue(launches);
        }
        let key: Vec<u32> = launches.iter().map(|launch| launch.parameters).collect();
        if self.graph.as_ref().is_none_or(|(captured, _)| *captured != key) {
            // Copies and allocations before must not become part of the graph.
            self.stream.synchronize().map_err(self.failed("cuStreamSynchronize"))?;
            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            self.stream.begin_capture(mode).map_err(self.failed("cuStreamBeginCapture"))?;
            let enqueued = self.enqueue(launches);
            let graph = self
                .stream
                .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)
                .map_err(self.failed("cuStreamEndCapture"));
            enqueued?;
            let graph = graph?.ok_or_else(|| GpuError::Unfit("an empty list of launches".into()))?;
            self.graph = Some((key, graph));
        }
        if let Some((_, graph)) = &self.graph {
            for _ in 0..times {
                graph.launch().map_err(self.failed("cuGraphLaunch"))?;
            }
        }
        Ok(())
    }
}

/// The newest CUDA version that the driver knows.
fn driver_version() -> String {
    let mut version = 0;
    // SAFETY: writes one integer; the library is loaded, or no context would exist.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    if result == CUresult::CUDA_SUCCESS {
        format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
    } else {
        "unknown".into()
    }
}

fn describe(error: DriverError) -> String {
    let text = error.error_string().map_or("unknown error".into(), |text| text.to_string_lossy());
    format!("{text} ({:?})", error.0)
}
