//! The kinds of blocks by their names in diffusers.

/// How a block changes the size of its map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resampler {
    /// A convolution.
    Conv,
    /// A residual block.
    Resnet,
    /// A residual block by FIR filters, and a path of pictures beside the network that is resampled by them as well (Song et al.,
    /// 2021, arXiv:2011.13456, appendix H: NCSN++).
    Fir,
}

/// A block on the way down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DownBlock {
    Down,
    AttnDown,
    ResnetDown,
    SkipDown,
    AttnSkipDown,
}

/// A block on the way up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpBlock {
    Up,
    AttnUp,
    ResnetUp,
    SkipUp,
    AttnSkipUp,
}

/// How a timestep becomes the input of a perceptron.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeEmbedding {
    Positional,
    Fourier,
    Learned,
}

impl TimeEmbedding {
    /// By their names; the first is the default.
    pub(super) const SUPPORTED: [(&str, Self); 3] =
        [("positional", Self::Positional), ("fourier", Self::Fourier), ("learned", Self::Learned)];
}

/// What a class adds to the time embedding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ClassEmbedding {
    /// A row of a table, if the configuration has classes.
    Table,
    /// What a perceptron makes of its number.
    Timestep,
    /// The vector that stands in the class's place.
    Identity,
}

/// Old versions of diffusers wrote this before the name of a block.
const OLD_PREFIX: &str = "UNetRes";

/// Why a block is refused, and what is supported.
fn refusal(name: &str, supported: &str) -> String {
    let reason = if name.contains("CrossAttn") || name.starts_with('K') {
        "it attends to a text or an image, which a UNet2DModel is not given; "
    } else {
        ""
    };
    format!("{reason}supported: {supported}")
}

impl DownBlock {
    /// By its name, or what would be accepted.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        Ok(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "DownBlock2D" => Self::Down,
            "AttnDownBlock2D" => Self::AttnDown,
            "ResnetDownsampleBlock2D" => Self::ResnetDown,
            "SkipDownBlock2D" => Self::SkipDown,
            "AttnSkipDownBlock2D" => Self::AttnSkipDown,
            other => {
                let supported =
                    "DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D, SkipDownBlock2D, AttnSkipDownBlock2D";
                return Err(refusal(other, supported));
            }
        })
    }

    pub(super) fn has_attention(self) -> bool {
        match self {
            Self::AttnDown | Self::AttnSkipDown => true,
            Self::Down | Self::ResnetDown | Self::SkipDown => false,
        }
    }

    /// Whether it resamples by FIR filters; groups and factors are others there.
    pub(super) fn filters(self) -> bool {
        self.resampler(Resampler::Conv) == Resampler::Fir
    }

    /// How it ends, where `downsample_type` is `configured`; diffusers reads that for blocks with attention only.
    pub(super) fn resampler(self, configured: Resampler) -> Resampler {
        match self {
            Self::Down => Resampler::Conv,
            Self::AttnDown => configured,
            Self::ResnetDown => Resampler::Resnet,
            Self::SkipDown | Self::AttnSkipDown => Resampler::Fir,
        }
    }
}

impl UpBlock {
    /// By its name, or what would be accepted.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        Ok(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "UpBlock2D" => Self::Up,
            "AttnUpBlock2D" => Self::AttnUp,
            "ResnetUpsampleBlock2D" => Self::ResnetUp,
            "SkipUpBlock2D" => Self::SkipUp,
            "AttnSkipUpBlock2D" => Self::AttnSkipUp,
            other => {
                let supported = "UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D, SkipUpBlock2D, AttnSkipUpBlock2D";
                return Err(refusal(other, supported));
            }
        })
    }

    /// Whether an attention follows layer `layer`, of which `last` is the last.
    pub(super) fn has_attention(self, layer: usize, last: usize) -> bool {
        match self {
            Self::AttnUp => true,
            Self::AttnSkipUp => layer == last,
            Self::Up | Self::ResnetUp | Self::SkipUp => false,
        }
    }

    /// Whether it resamples by FIR filters; groups and factors are others there.
    pub(super) fn filters(self) -> bool {
        self.resampler(Resampler::Conv) == Resampler::Fir
    }

    /// How it ends, where `upsample_type` is `configured`; diffusers reads that for blocks with attention only.
    pub(super) fn resampler(self, configured: Resampler) -> Resampler {
        match self {
            Self::Up => Resampler::Conv,
            Self::AttnUp => configured,
            Self::ResnetUp => Resampler::Resnet,
            Self::SkipUp | Self::AttnSkipUp => Resampler::Fir,
        }
    }
}
