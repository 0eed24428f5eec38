//! A validated view of a `.waft` file.

use crate::error::ModelError;
use crate::format::{self, FixedStep, FloatStep, Header, Op, Precision, STEP_BYTES, Schedule, Tensor};

/// A model, read in place. Once it exists, no accessor can fail.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Model<'a> {
    /// Checks `bytes` completely, see [`format`], and keeps a view of them.
    ///
    /// # Errors
    /// A [`ModelError`] that names the first thing found wrong.
    pub const fn from_bytes(bytes: &'a [u8]) -> Result<Self, ModelError> {
        Self::with_checksum(bytes, format::checksum(bytes))
    }

    const fn with_checksum(bytes: &'a [u8], found: u32) -> Result<Self, ModelError> {
        match format::validate(bytes, found) {
            Ok(header) => Ok(Self { bytes, header }),
            Err(error) => Err(error),
        }
    }

    /// The same, for a constant: an invalid model does not compile. Used by [`include_model!`](crate::include_model). Not for a
    /// program that runs: its tables for the checksum have eight kilobytes.
    ///
    /// # Panics
    /// If the bytes are not a model; in a constant, that is a compile error.
    // The error stands at the line that includes the model.
    #[track_caller]
    pub const fn from_bytes_or_panic(bytes: &'a [u8]) -> Self {
        match Self::with_checksum(bytes, format::checksum_interpreted(bytes)) {
            Ok(model) => model,
            Err(ModelError::Truncated { .. }) => panic!("model file is truncated"),
            Err(ModelError::Magic) => panic!("not a .waft file"),
            Err(ModelError::Version { .. }) => panic!("model file has another format version; export it again"),
            Err(ModelError::Precision { .. }) => panic!("model file has an unknown precision"),
            Err(ModelError::Checksum { .. }) => panic!("model file is damaged: its checksum differs"),
            Err(ModelError::Malformed { .. }) => panic!("model file is malformed; export it again"),
        }
    }

    /// The file.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header's fields.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// How it computes.
    pub const fn precision(&self) -> Precision {
        self.header.precision()
    }

    /// Bytes of memory that a session needs, scratch included; a multiple of 16.
    pub const fn arena_bytes(&self) -> usize {
        self.header.arena_bytes as usize
    }

    /// The name that the exporter gave it.
    pub const fn name(&self) -> &'a str {
        self.text(self.header.name)
    }

    /// Where it comes from: checkpoint, exporter, licence.
    pub const fn provenance(&self) -> &'a str {
        self.text(self.header.provenance)
    }

    const fn text(&self, [at, len]: [u32; 2]) -> &'a str {
        match core::str::from_utf8(format::slice_at(self.bytes, at as usize, len as usize)) {
            Ok(text) => text,
            Err(_) => "",
        }
    }

    /// Number of classes, 0 if it is unconditional.
    pub const fn classes(&self) -> u16 {
        self.header.classes
    }

    /// The class that means "no class", if there is one.
    pub const fn unconditional_class(&self) -> Option<u16> {
        if self.header.unconditional_class == format::NONE { None } else { Some(self.header.unconditional_class) }
    }

    /// Whether pictures can be drawn with guidance other than 1.
    pub const fn has_guidance(&self) -> bool {
        self.header.unconditional != format::NONE
    }

    /// Rows, columns and channels of the picture.
    pub const fn image_shape(&self) -> [usize; 3] {
        match self.tensor(self.header.sample) {
            Some(t) => [t.rows as usize, t.columns as usize, t.channels as usize],
            None => [0; 3],
        }
    }

    /// Rows, columns and channels of the condition that the network reads beside the sample; `None` if it reads none.
    pub const fn condition_shape(&self) -> Option<[usize; 3]> {
        if self.header.condition == 0 {
            return None;
        }
        match self.tensor(self.header.condition) {
            Some(t) => Some([t.rows as usize, t.columns as usize, t.channels as usize]),
            None => None,
        }
    }

    /// Length of the observation that a policy acts on; `None` if it acts on none.
    pub const fn observation_len(&self) -> Option<usize> {
        if self.header.observation == 0 {
            return None;
        }
        match self.tensor(self.header.observation) {
            Some(t) => Some(t.len()),
            None => None,
        }
    }

    /// Whether the sample is a series of actions, see [`Run::actions`](crate::Run::actions), rather than a picture.
    pub const fn has_actions(&self) -> bool {
        self.header.actions != 0
    }

    /// Number of the first operations that a run executes once.
    pub(crate) const fn ops_once(&self) -> u16 {
        self.header.once
    }

    /// Number of tensors in the plan.
    pub const fn tensors(&self) -> u16 {
        self.header.tensors
    }

    /// A tensor of the plan.
    pub const fn tensor(&self, id: u16) -> Option<Tensor> {
        self.header.tensor(self.bytes, id)
    }

    /// A tensor of the plan where it stands in the file; `None` as well where the bytes are not aligned as values are read.
    pub(crate) fn tensor_ref(&self, id: u16) -> Option<&'a Tensor> {
        if id >= self.header.tensors {
            return None;
        }
        let at = self.header.tensors_at as usize + usize::from(id) * size_of::<Tensor>();
        bytemuck::try_from_bytes(self.data(at, size_of::<Tensor>())).ok()
    }

    /// Number of operations of one network call.
    pub const fn ops(&self) -> u16 {
        self.header.ops
    }

    /// An operation.
    pub const fn op(&self, index: u16) -> Option<Op> {
        self.header.op(self.bytes, index)
    }

    /// Number of step lists.
    pub const fn schedules(&self) -> u16 {
        self.header.schedules
    }

    /// A step list.
    pub const fn schedule(&self, index: u16) -> Option<Schedule> {
        self.header.schedule(self.bytes, index)
    }

    /// The steps of a step list in i8; those of another precision read as nonsense.
    pub fn fixed_steps(&self, schedule: &Schedule) -> impl ExactSizeIterator<Item = FixedStep> + use<'a> {
        let (bytes, first) = (self.bytes, schedule.rows as usize);
        (0..schedule.steps).map(move |step| FixedStep::read(bytes, first + step as usize * STEP_BYTES))
    }

    /// The steps of a step list in f16 and f32; those of i8 read as nonsense.
    pub fn float_steps(&self, schedule: &Schedule) -> impl ExactSizeIterator<Item = FloatStep> + use<'a> {
        let (bytes, first) = (self.bytes, schedule.rows as usize);
        (0..schedule.steps).map(move |step| FloatStep::read(bytes, first + step as usize * STEP_BYTES))
    }

    /// `len` bytes at offset `at`; validation has seen that every such range in the plan exists.
    pub(crate) const fn data(&self, at: usize, len: usize) -> &'a [u8] {
        format::slice_at(self.bytes, at, len)
    }
}

/// Bytes aligned so that any core can load words from them; made by [`include_model!`](crate::include_model).
#[doc(hidden)]
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Aligned<T: ?Sized>(pub T);

/// Embeds a `.waft` file as a static [`Model`], validated while the firmware compiles: all that [`Model::from_bytes`] checks,
/// checksum included, in about two seconds for 1.6 MB.
///
/// ```ignore
/// waft::include_model!(pub DIGITS, "digits.waft");
/// static ARENA: waft::Arena<{ DIGITS.arena_bytes() }> = waft::Arena::new();
/// ```
///
/// Attributes belong to the static, but for `link_section`: that places the file, in external flash that is mapped into
/// memory for example, where `memory.x` has a section of that name.
///
/// ```ignore
/// waft::include_model! {
///     /// Emoji, in the flash behind QSPI.
///     #[unsafe(link_section = ".external_flash")]
///     pub EMOJI, "emoji.waft"
/// }
/// ```
///
/// A file that was programmed beside the firmware instead of linked into it is opened where it lies, with
/// [`Model::from_bytes`] of a slice there.
#[macro_export]
macro_rules! include_model {
    // Attributes are told apart one by one: those of the file, then those of the static.
    (@sort [$($file:tt)*] [$($view:tt)*] #[unsafe(link_section = $section:expr)] $($rest:tt)*) => {
        $crate::include_model!(@sort [$($file)* #[unsafe(link_section = $section)]] [$($view)*] $($rest)*);
    };
    (@sort [$($file:tt)*] [$($view:tt)*] #[link_section = $section:expr] $($rest:tt)*) => {
        $crate::include_model!(@sort [$($file)* #[unsafe(link_section = $section)]] [$($view)*] $($rest)*);
    };
    (@sort [$($file:tt)*] [$($view:tt)*] #[$($attribute:tt)*] $($rest:tt)*) => {
        $crate::include_model!(@sort [$($file)*] [$($view)* #[$($attribute)*]] $($rest)*);
    };
    (@sort [$($file:tt)*] [$($view:tt)*] $visibility:vis $name:ident, $path:expr) => {
        $($view)*
        // The whole check runs in the compiler's interpreter; what the lint allows is enough for about 16 MB.
        #[allow(long_running_const_eval)]
        $visibility static $name: $crate::Model<'static> = {
            $($file)*
            static FILE: $crate::Aligned<[u8; include_bytes!($path).len()]> = $crate::Aligned(*include_bytes!($path));
            $crate::Model::from_bytes_or_panic(&FILE.0)
        };
    };
    ($($input:tt)*) => {
        $crate::include_model!(@sort [] [] $($input)*);
    };
}
