//! `bench`: speed beside a peer.

mod aims;
mod bars;
#[cfg(feature = "cuda")]
mod cuda;
mod host;
pub(crate) mod kernels;
pub(crate) mod layers;
mod measured;
mod models;

/// Measures speed beside a peer.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    #[cfg(feature = "cuda")]
    Cuda(cuda::Args),
    Host(host::Args),
    Kernels(kernels::Args),
    Models(models::Args),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        #[cfg(feature = "cuda")]
        What::Cuda(args) => cuda::run(args),
        What::Host(args) => host::run(args),
        What::Kernels(args) => kernels::run(args),
        What::Models(args) => models::run(args),
    }
}
