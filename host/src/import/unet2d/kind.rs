//! The kinds of blocks by their names in diffusers.

/// How a block changes the size of its map.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resampler {
    /// A convolution.
    Conv,
    /// A residual block.
    Resnet,
}

/// A block on the way down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DownBlock {
    Down,
    AttnDown,
    ResnetDown,
}

/// A block on the way up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpBlock {
    Up,
    AttnUp,
    ResnetUp,
}

/// Old versions of diffusers wrote this before the name of a block.
const OLD_PREFIX: &str = "UNetRes";

impl DownBlock {
    pub(super) const SUPPORTED: &str = "DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D";

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "DownBlock2D" => Self::Down,
            "AttnDownBlock2D" => Self::AttnDown,
            "ResnetDownsampleBlock2D" => Self::ResnetDown,
            _ => return None,
        })
    }

    pub(super) fn has_attention(self) -> bool {
        match self {
            Self::AttnDown => true,
            Self::Down | Self::ResnetDown => false,
        }
    }

    /// How it ends, where `downsample_type` is `configured`; diffusers reads that for blocks with attention only.
    pub(super) fn resampler(self, configured: Resampler) -> Resampler {
        match self {
            Self::Down => Resampler::Conv,
            Self::AttnDown => configured,
            Self::ResnetDown => Resampler::Resnet,
        }
    }
}

impl UpBlock {
    pub(super) const SUPPORTED: &str = "UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D";

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(OLD_PREFIX).unwrap_or(name) {
            "UpBlock2D" => Self::Up,
            "AttnUpBlock2D" => Self::AttnUp,
            "ResnetUpsampleBlock2D" => Self::ResnetUp,
            _ => return None,
        })
    }

    pub(super) fn has_attention(self) -> bool {
        match self {
            Self::AttnUp => true,
            Self::Up | Self::ResnetUp => false,
        }
    }

    /// How it ends, where `upsample_type` is `configured`; diffusers reads that for blocks with attention only.
    pub(super) fn resampler(self, configured: Resampler) -> Resampler {
        match self {
            Self::Up => Resampler::Conv,
            Self::AttnUp => configured,
            Self::ResnetUp => Resampler::Resnet,
        }
    }
}
