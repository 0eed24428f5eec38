//! A model as launches of kernels.

use waft::Model;
use waft::format::{Op, Precision};
use waft_kernels::{
    Kernel, LANES, Strides, activate, attention, classifier, conv2d, embedding, filter, group_norm, layer_norm,
    linear_attention, sampler, samples_at,
};

use super::GpuError;

/// A kernel and where its parameters lie.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Place of its parameters in [`Space::Constants`](waft_kernels::Space::Constants).
    pub parameters: u32,
}

/// A model as launches.
#[derive(Clone, Debug)]
pub struct Program {
    /// What [`Space::Constants`](waft_kernels::Space::Constants) holds: the file, repacked weights, parameters.
    pub constants: Vec<u8>,
    /// How far apart pictures lie in arenas and scratch.
    pub strides: Strides,
    /// Elements of the sample.
    pub(super) len: u32,
    /// Of each operation, for each picture's own class.
    ops: Vec<Vec<Launch>>,
    /// Number of the first operations that are launched once for all steps.
    once: usize,
    /// The operations that differ for the class that means "no class".
    unconditional: Vec<Option<Launch>>,
    /// Whether a classifier guides.
    has_gradient: bool,
    pub(super) noise: Launch,
    keep: Launch,
    measure: Launch,
    search: Launch,
    update: Launch,
    pub(super) results: Launch,
    advance: Launch,
}

/// Builds constants and remembers where parameters went.
struct Builder {
    constants: Vec<u8>,
}

impl Builder {
    fn append(&mut self, bytes: &[u8]) -> Result<u32, GpuError> {
        self.constants.resize(self.constants.len().next_multiple_of(16), 0);
        let at = u32::try_from(self.constants.len())
            .map_err(|_| GpuError::Unfit("the model and its repacked weights have more than 4 GiB".into()))?;
        self.constants.extend(bytes);
        Ok(at)
    }

    fn launch(&mut self, kernel: Kernel) -> Result<Launch, GpuError> {
        Ok(Launch { kernel, parameters: self.append(kernel.parameters())? })
    }
}

impl Program {
    /// Of a model and the weights' own file, if it has one.
    ///
    /// # Errors
    /// If the model is too large, or does not sample.
    pub fn new(model: &Model<'_>, weights: &[u8]) -> Result<Self, GpuError> {
        let too_large = || GpuError::Unfit("an operation needs more than 4 GiB for each picture".into());
        let integer = model.precision() == Precision::I8;
        let file = if model.header().weights_bytes > 0 { weights } else { model.bytes() };
        if weights.len() != model.header().weights_bytes as usize {
            let (found, expected) = (weights.len(), model.header().weights_bytes);
            return Err(GpuError::Unfit(format!("{found} bytes of streamed weights, the model has {expected}")));
        }
        let mut builder = Builder { constants: model.bytes().to_vec() };
        // The stride of the scratch is the largest need, known once all operations are.
        let mut strides = Strides { arena: model.header().arena_bytes, scratch: 16 };
        let mut packed = vec![];
        for index in 0..model.ops() {
            let need = match model.op(index).ok_or_else(too_large)? {
                Op::Conv2d(_) => {
                    let weights = if integer {
                        conv2d::i8::pack(model, index, file)
                    } else {
                        conv2d::float::pack(model, index, file)
                    };
                    let weights = weights.ok_or_else(|| {
                        let what = "its weights are not all there, or numbers that no weights are transformed to";
                        GpuError::Unfit(format!("operation {index}: {what}"))
                    })?;
                    let at = builder.append(&weights)?;
                    packed.push(at);
                    conv2d::Parameters::new(model, index, strides, at).ok_or_else(too_large)?.scratch_bytes()
                }
                Op::Attention(_) => {
                    packed.push(0);
                    attention::Parameters::new(model, index, strides).ok_or_else(too_large)?.scratch_bytes()
                }
                Op::LinearAttention(_) => {
                    packed.push(0);
                    linear_attention::Parameters::new(model, index, strides).ok_or_else(too_large)?.scratch_bytes()
                }
                Op::GroupNorm(_)
                | Op::Embed(_)
                | Op::Linear(_)
                | Op::Activate(_)
                | Op::Observe(_)
                | Op::LayerNorm(_)
                | Op::Classifier(_)
                | Op::Filter(_) => {
                    packed.push(0);
                    0
                }
            };
            strides.scratch = strides.scratch.max(need.next_multiple_of(16));
        }
        let mut ops = vec![];
        let mut unconditional = vec![];
        for (index, at) in (0..model.ops()).zip(packed) {
            let mut other = None;
            let kernels = match model.op(index).ok_or_else(too_large)? {
                Op::Conv2d(_) => {
                    let parameters = conv2d::Parameters::new(model, index, strides, at).ok_or_else(too_large)?;
                    if integer {
                        vec![
                            Kernel::conv2d_i8_gather(conv2d::i8::GatherKernel(parameters)),
                            Kernel::conv2d_i8_multiply(conv2d::i8::MultiplyKernel(parameters)),
                        ]
                    } else {
                        vec![
                            Kernel::conv2d_float_gather(conv2d::float::GatherKernel(parameters)),
                            Kernel::conv2d_float_multiply(conv2d::float::MultiplyKernel(parameters)),
                        ]
                    }
                }
                Op::GroupNorm(_) => {
                    let parameters = group_norm::Parameters::new(model, index, strides).ok_or_else(too_large)?;
                    if integer {
                        vec![Kernel::group_norm_i8(group_norm::IntegerKernel(parameters))]
                    } else {
                        vec![Kernel::group_norm_float(group_norm::FloatKernel(parameters))]
                    }
                }
                Op::Attention(_) => {
                    let parameters = attention::Parameters::new(model, index, strides).ok_or_else(too_large)?;
                    if integer {
                        vec![
                            Kernel::attention_i8_scores(attention::IntegerScoresKernel(parameters)),
                            Kernel::attention_i8_context(attention::IntegerContextKernel(parameters)),
                        ]
                    } else {
                        vec![
                            Kernel::attention_float_scores(attention::FloatScoresKernel(parameters)),
                            Kernel::attention_float_context(attention::FloatContextKernel(parameters)),
                        ]
                    }
                }
                Op::Embed(_) => {
                    let embed = |unconditional| embedding::EmbedKernel::new(model, index, strides, unconditional);
                    if model.unconditional_class().is_some() {
                        other = Some(builder.launch(Kernel::embed(embed(true).ok_or_else(too_large)?))?);
                    }
                    vec![Kernel::embed(embed(false).ok_or_else(too_large)?)]
                }
                Op::Linear(_) => {
                    vec![Kernel::linear(embedding::LinearKernel::new(model, index, strides).ok_or_else(too_large)?)]
                }
                Op::Activate(_) if integer => {
                    let kernel = activate::IntegerKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::activate_i8(kernel)]
                }
                Op::Activate(_) => {
                    let kernel = activate::FloatKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::activate_float(kernel)]
                }
                Op::LinearAttention(_) => {
                    let parameters = linear_attention::Parameters::new(model, index, strides).ok_or_else(too_large)?;
                    if integer {
                        vec![
                            Kernel::linear_attention_i8_context(linear_attention::IntegerContextKernel(parameters)),
                            Kernel::linear_attention_i8_result(linear_attention::IntegerResultKernel(parameters)),
                        ]
                    } else {
                        vec![
                            Kernel::linear_attention_float_context(linear_attention::FloatContextKernel(parameters)),
                            Kernel::linear_attention_float_result(linear_attention::FloatResultKernel(parameters)),
                        ]
                    }
                }
                Op::LayerNorm(_) if integer => {
                    let kernel = layer_norm::IntegerKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::layer_norm_i8(kernel)]
                }
                Op::LayerNorm(_) => {
                    let kernel = layer_norm::FloatKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::layer_norm_float(kernel)]
                }
                Op::Classifier(_) => {
                    let kernel = classifier::ClassifierKernel::new(model, index, strides).ok_or_else(too_large)?;
                    vec![Kernel::classifier(kernel)]
                }
                Op::Filter(_) => {
                    vec![Kernel::filter(filter::FilterKernel::new(model, index, strides).ok_or_else(too_large)?)]
                }
                Op::Observe(_) => {
                    vec![Kernel::observe(activate::ObserveKernel::new(model, index, strides).ok_or_else(too_large)?)]
                }
            };
            ops.push(kernels.into_iter().map(|kernel| builder.launch(kernel)).collect::<Result<_, _>>()?);
            unconditional.push(other);
        }
        let around = sampler::Parameters::new(model, strides).ok_or_else(|| {
            GpuError::Unfit("the model does not sample: its output is not of the sample's shape".into())
        })?;
        Ok(Self {
            strides,
            len: model.image_shape().iter().product::<usize>() as u32,
            ops,
            once: model.header().once.into(),
            unconditional,
            has_gradient: model.header().gradient != 0,
            noise: builder.launch(Kernel::noise(sampler::NoiseKernel(around)))?,
            keep: builder.launch(Kernel::keep(sampler::KeepKernel(around)))?,
            measure: builder.launch(Kernel::measure(sampler::MeasureKernel(around)))?,
            search: builder.launch(Kernel::search(sampler::SearchKernel(around)))?,
            update: builder.launch(Kernel::update(sampler::UpdateKernel(around)))?,
            results: builder.launch(Kernel::results(sampler::ResultsKernel(around)))?,
            advance: builder.launch(Kernel::advance(sampler::AdvanceKernel { steps: 1 }))?,
            constants: builder.constants,
        })
    }

    /// Bytes of [`Space::State`](waft_kernels::Space::State) for a batch.
    pub fn state_bytes(&self, batch: u32) -> usize {
        samples_at(batch, self.len) + 4 * self.len as usize * batch as usize
    }

    /// Most pictures of a batch: kernels number their threads with 32 bits.
    pub fn most_pictures(&self) -> u32 {
        let around = [&self.noise, &self.keep, &self.measure, &self.search, &self.update, &self.results];
        let launches = self.ops.iter().flatten().chain(around);
        let threads = launches.map(|launch| launch.kernel.warps(1) * LANES as u64).max().unwrap_or(1);
        u32::try_from(u64::from(u32::MAX) / threads.max(1)).unwrap_or(u32::MAX)
    }

    /// Launches of one operation, for each picture's own class.
    pub fn op(&self, index: u16) -> &[Launch] {
        self.ops.get(usize::from(index)).map_or(&[], Vec::as_slice)
    }

    /// Launches of what is computed once for all steps.
    pub(super) fn once(&self) -> Vec<Launch> {
        self.ops.iter().take(self.once).flatten().copied().collect()
    }

    /// Launches of one step of the sampler.
    pub(super) fn step(&self, guided: bool, rescales: bool, thresholds: bool) -> Vec<Launch> {
        let mut launches = vec![];
        if guided && !self.has_gradient {
            for (own, other) in self.ops.iter().zip(&self.unconditional).skip(self.once) {
                match other {
                    Some(other) => launches.push(*other),
                    None => launches.extend(own),
                }
            }
            launches.push(self.keep);
        }
        launches.extend(self.ops.iter().skip(self.once).flatten());
        launches.extend(self.has_gradient.then_some(self.keep));
        launches.extend((guided && rescales).then_some(self.measure));
        launches.extend(thresholds.then_some(self.search));
        launches.extend([self.update, self.advance]);
        launches
    }
}
