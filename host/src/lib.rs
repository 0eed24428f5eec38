//! From a diffusers checkpoint to a `.waft` file, and from there to pictures, on the host.
//!
//! The way of data, one module each: [`checkpoint`] reads the folder, [`import`] builds the [`graph`], [`mod@rewrite`] folds
//! it into a [`network`] of device operations, [`mod@calibrate`] watches the `f32` precision, [`quantize`], [`rounding`] and
//! [`emit`] turn real numbers into integers as [`recipe`] and [`widths`] say, [`stream`] cuts weights that the device does not
//! hold, [`mod@plan`] places tensors in the arena, [`write`](mod@write) makes the file. [`mod@export`] runs the whole line in
//! stages.
//! [`schedule`] knows diffusers' schedulers; [`sample`] draws pictures with the runtime itself; [`quality`] says
//! what they are worth, [`mod@compare`] which sampler with how many steps draws the best for the least; [`gpu`] draws them by the thousand, on a GPU, exactly as the device will.
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod calibrate;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compare;
pub mod condition;
pub mod cost;
pub mod emit;
pub mod export;
pub mod fixed;
pub mod gpu;
pub mod graph;
pub mod image;
pub mod import;
pub mod network;
pub mod parity;
pub mod patches;
pub mod plan;
mod pointer;
pub mod progress;
pub mod quality;
pub mod quantize;
pub mod recipe;
pub mod report;
pub mod rewrite;
pub mod rounding;
pub mod sample;
pub mod schedule;
pub mod shipped;
pub mod stream;
pub mod target_core;
pub mod tensors;
pub mod text;
pub mod threads;
pub mod widths;
pub mod write;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
