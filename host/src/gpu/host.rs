//! The GPU backend without a GPU: every kernel body over its whole grid, one warp after another. For parity, not for speed.

use waft_kernels::{HostMemory, HostWarp, Space};

use super::{Device, GpuError, Launch, Program};

/// Pictures of a batch: enough that warps hold pixels of several.
const BATCH: u32 = 16;

/// The host as a device.
#[derive(Debug, Default)]
pub struct Host {
    constants: Vec<u8>,
    /// Arenas, scratch, state.
    memories: [Vec<u8>; 3],
    batch: u32,
}

impl Host {
    fn memory(&mut self, space: Space) -> &mut Vec<u8> {
        let [arenas, scratch, state] = &mut self.memories;
        match space {
            Space::Constants => &mut self.constants,
            Space::Arenas => arenas,
            Space::Scratch => scratch,
            Space::State => state,
        }
    }
}

impl Device for Host {
    fn name(&self) -> String {
        "host".into()
    }

    fn driver(&self) -> Option<String> {
        None
    }

    fn capacity(&mut self, _program: &Program) -> Result<u32, GpuError> {
        Ok(BATCH)
    }

    fn prepare(&mut self, program: &Program, batch: u32) -> Result<(), GpuError> {
        let pictures = batch as usize;
        self.constants.clone_from(&program.constants);
        // Nothing may depend on what memory held before.
        self.memories = [
            vec![0xA5; program.strides.arena as usize * pictures],
            vec![0xA5; program.strides.scratch as usize * pictures],
            vec![0xA5; program.state_bytes(batch)],
        ];
        self.batch = batch;
        Ok(())
    }

    fn write(&mut self, space: Space, at: usize, bytes: &[u8]) -> Result<(), GpuError> {
        self.memory(space)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, space: Space, at: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        bytes.copy_from_slice(&self.memory(space)[at..at + bytes.len()]);
        Ok(())
    }

    fn launch(&mut self, launches: &[Launch], times: u32) -> Result<(), GpuError> {
        let [arenas, scratch, state] = &mut self.memories;
        for _ in 0..times {
            for launch in launches {
                let memory = HostMemory::new(&self.constants, arenas, scratch, state);
                for index in 0..launch.kernel.warps(self.batch) as u32 {
                    launch.kernel.run(memory, HostWarp, index, self.batch);
                }
            }
        }
        Ok(())
    }
}
