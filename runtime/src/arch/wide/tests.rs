//! Each instruction set that this machine has against the definition of each kernel, on the same cases.
