//! What a network is given beside the noise, and a run leaves as it is: conditions, channels beside the sample as a small image
//! to enlarge or one to paint in, and the observations that policies act on.

use std::path::Path;

use thiserror::Error;
use waft::{Model, Precision, SamplesMut, Session, WeightSource};

use crate::fixed::{fits_fixed, to_fixed};
use crate::image::{ImageError, read_png};
use crate::report::normalization;
use crate::tensors::{self, TensorsError, to_hwc};

/// Why conditions are refused.
#[derive(Debug, Error)]
pub enum ConditionError {
    /// The picture cannot be read.
    #[error("{path}: {error}")]
    Image {
        /// The file.
        path: String,
        /// What is wrong.
        error: ImageError,
    },
    /// The tensor cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// They have another shape.
    #[error("condition has shape {found:?}, expected (N, {channels}, {rows}, {columns})")]
    Shape {
        /// Their shape.
        found: Vec<usize>,
        /// Channels of a condition.
        channels: usize,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// Observations of another length.
    #[error("observation has shape {found:?}, expected (N, {len})")]
    Observations {
        /// Their shape.
        found: Vec<usize>,
        /// Values that a policy acts on.
        len: usize,
    },
    /// An observation that is not a number, or leaves the runtime's fixed point.
    #[error("value {index} of an observation is {value}; observations are finite numbers between -2048 and 2048")]
    ObservationRange {
        /// Its index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A value that the runtime's fixed point does not hold.
    #[error("condition holds {value}; the i8 precision takes numbers between -2048 and 2048")]
    Range {
        /// The value.
        value: f32,
    },
}

/// One condition or several, of which pictures take turns; and so observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// (condition, row, column, channel) order.
    channels: Given,
    observations: Given,
}

/// Several vectors of one length.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    values: Vec<f32>,
    /// Values of one.
    len: usize,
}

impl Given {
    fn count(&self) -> usize {
        self.values.len().checked_div(self.len).unwrap_or(0)
    }

    fn of(&self, picture: usize) -> Option<&[f32]> {
        let at = picture.checked_rem(self.count())? * self.len;
        self.values.get(at..at + self.len)
    }
}

impl Conditions {
    /// From values of shape (N, C, H, W), for a network whose condition has `shape`: rows, columns, channels.
    ///
    /// # Errors
    /// If the shape is another, there is none, or a value does not fit the runtime's fixed point.
    pub fn new(found: &[usize], values: &[f32], shape: [usize; 3]) -> Result<Self, ConditionError> {
        let [rows, columns, channels] = shape;
        match *found {
            [count, c, h, w] if count > 0 && [h, w, c] == shape => {}
            _ => return Err(ConditionError::Shape { found: found.to_vec(), channels, rows, columns }),
        }
        match values.iter().find(|value| !fits_fixed(**value)) {
            Some(&value) => Err(ConditionError::Range { value }),
            None => Ok(Self::of_channels(to_hwc(values, shape), shape)),
        }
    }

    /// From a file: tensor `condition` (N, C, H, W) f32 of a safetensors file, or a PNG whose bytes 0 to 255 become −1 to 1.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Conditions::new`].
    pub fn read(path: &Path, shape: [usize; 3]) -> Result<Self, ConditionError> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            let image = |error| ConditionError::Image { path: path.display().to_string(), error };
            let bytes = read_png(path, shape).map_err(image)?;
            let values = bytes.into_iter().map(|byte| f32::from(byte) / 127.5 - 1.0).collect();
            return Ok(Self::of_channels(values, shape));
        }
        let (found, values) = tensors::read(path)?.f32("condition")?;
        Self::new(&found, &values, shape)
    }

    /// One of zeros.
    pub fn zeros(shape: [usize; 3]) -> Self {
        Self::of_channels(vec![0.0; shape.iter().product()], shape)
    }

    fn of_channels(values: Vec<f32>, shape: [usize; 3]) -> Self {
        Self { channels: Given { values, len: shape.iter().product() }, observations: Given::default() }
    }

    /// Observations of shape (N, D), for a policy that acts on `len` values.
    ///
    /// # Errors
    /// If the shape is another, there is none, or a value is not a number or does not fit the runtime's fixed point.
    pub fn observations(found: &[usize], values: &[f32], len: usize) -> Result<Self, ConditionError> {
        if found.len() != 2 || found[0] == 0 || found[1] != len {
            return Err(ConditionError::Observations { found: found.to_vec(), len });
        }
        match values.iter().position(|value| !fits_fixed(*value)) {
            Some(index) => Err(ConditionError::ObservationRange { index: index % len, value: values[index] }),
            None => Ok(Self { channels: Given::default(), observations: Given { values: values.to_vec(), len } }),
        }
    }

    /// The observation that is 0 when it is normalized; none of a model that acts on none.
    pub fn central(model: &Model<'_>) -> Self {
        let centers: Vec<f32> = normalization(model).iter().map(|of| of[0] as f32).collect();
        Self { channels: Given::default(), observations: Given { len: centers.len(), values: centers } }
    }

    /// From a file: tensor `observation` (N, D) f32.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Conditions::observations`].
    pub fn read_observations(path: &Path, len: usize) -> Result<Self, ConditionError> {
        let (found, values) = tensors::read(path)?.f32("observation")?;
        Self::observations(&found, &values, len)
    }

    /// The bytes of a picture's observation, as a model has them; empty if there are none.
    pub fn observation_bytes(&self, model: &Model<'_>, picture: usize) -> Vec<u8> {
        let values = self.observation_of(picture).unwrap_or_default();
        match model.precision() {
            Precision::I8 => to_fixed(values).into_iter().flat_map(i32::to_le_bytes).collect(),
            Precision::F16 | Precision::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// The observation of a picture; `None` if there are none.
    pub fn observation_of(&self, picture: usize) -> Option<&[f32]> {
        self.observations.of(picture)
    }

    /// How many conditions there are.
    pub fn count(&self) -> usize {
        self.channels.count()
    }

    /// How many conditions or observations there are, whichever are more.
    pub fn len(&self) -> usize {
        self.channels.count().max(self.observations.count())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The condition of a picture; `None` if there are none.
    pub fn of(&self, picture: usize) -> Option<&[f32]> {
        self.channels.of(picture)
    }

    /// Gives a session the condition and the observation of a picture, as far as there are any and the model reads them.
    pub fn give<W: WeightSource>(&self, session: &mut Session<'_, W>, picture: usize) {
        if let (Some(values), Some(condition)) = (self.of(picture), session.condition()) {
            write(values, condition);
        }
        if let (Some(values), Some(observation)) = (self.observation_of(picture), session.observation()) {
            write(values, observation);
        }
    }
}

fn write(values: &[f32], to: SamplesMut<'_>) {
    match to {
        SamplesMut::Fixed(to) => to.copy_from_slice(&to_fixed(values)),
        SamplesMut::Float(to) => to.copy_from_slice(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_take_turns() {
        let values: Vec<f32> = (0..8).map(|value| value as f32).collect();
        let conditions = Conditions::new(&[2, 2, 1, 2], &values, [1, 2, 2]).expect("of that shape");
        assert_eq!(conditions.count(), 2);
        // (channel, column) becomes (column, channel).
        assert_eq!(conditions.of(0), Some(&[0.0, 2.0, 1.0, 3.0][..]));
        assert_eq!(conditions.of(3), Some(&[4.0, 6.0, 5.0, 7.0][..]));
        assert_eq!(Conditions::default().of(0), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new =
            |shape: &[usize], value: f32| Conditions::new(shape, &[value; 4], [1, 2, 2]).map_err(|e| e.to_string());
        assert!(new(&[1, 2, 1, 2], 1.0).is_ok());
        for shape in [&[2, 1, 2][..], &[0, 2, 1, 2], &[1, 1, 2, 2]] {
            assert!(new(shape, 1.0).expect_err("refused").contains("expected (N, 2, 1, 2)"), "{shape:?}");
        }
        for value in [f32::NAN, f32::INFINITY, 2048.0] {
            let refused = Conditions::observations(&[1, 2], &[0.0, value], 2).expect_err("refused").to_string();
            assert!(refused.contains("value 1 of an observation"), "{refused}");
        }
        let refused = Conditions::observations(&[1, 3], &[0.0; 3], 2).expect_err("refused").to_string();
        assert!(refused.contains("expected (N, 2)"), "{refused}");
        assert!(new(&[1, 2, 1, 2], 4000.0).expect_err("refused").contains("holds 4000"));
    }
}
