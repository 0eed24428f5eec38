//! `bench`: speed beside a peer.

#[cfg(feature = "cuda")]
mod cuda;
mod kernels;
mod layers;

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
    Kernels(kernels::Args),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        #[cfg(feature = "cuda")]
        What::Cuda(args) => cuda::run(args),
        What::Kernels(args) => kernels::run(args),
    }
}
