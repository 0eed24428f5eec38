//! What drawn pictures are held against: real ones, by a judge's features or by pixels.

use std::path::{Path, PathBuf};

use waft::Model;

use super::judge::{Judge, pixel_features};
use super::metrics::{Estimate, Features, Gaussian, frechet, inception_score, median, psnr, ssim, within_manifold};
use super::{Figures, QualityError};
use crate::export::precision_name;
use crate::sample::{AlignedBytes, Picture};

/// Neighbours that a manifold reaches to.
const NEIGHBOURS: usize = 3;

/// Real pictures, what pictures are compared by, and the classes that were asked for.
pub struct Judged {
    judge: Option<Judge>,
    real: Features,
    classes: Vec<u16>,
    shape: [usize; 3],
}

/// Features of pictures, and class probabilities if there is a judge.
pub type Seen = (Features, Option<Vec<Vec<f64>>>);

impl Judged {
    /// Reads the judge, if there is one, and the real pictures: those of a folder, or the judge's training data. `classes` are
    /// those of the pictures that are to be judged; none for a model without.
    ///
    /// # Errors
    /// If there are no real pictures, or a file is not usable.
    pub fn open(
        judge: Option<&Path>,
        real: Option<&Path>,
        classes: Vec<u16>,
        shape: [usize; 3],
    ) -> Result<Self, QualityError> {
        let judge = judge.map(|path| Judge::read(path, shape)).transpose()?;
        let real = match (real, &judge) {
            (Some(folder), _) => {
                let pictures = read_folder(folder, shape)?;
                let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
                match &judge {
                    Some(judge) => judge.judge_all(&pictures, shape).0,
                    None => pixel_features(&pictures, shape),
                }
            }
            (None, Some(judge)) => judge.real.clone(),
            (None, None) => {
                let what = "the model has no judge.safetensors: name a folder of real pictures with --real, or a judge";
                return Err(QualityError::Option(what.into()));
            }
        };
        Ok(Self { judge, real, classes, shape })
    }

    /// What pictures are compared by.
    pub fn described(&self) -> String {
        match &self.judge {
            Some(judge) => format!("{} features of a classifier of {} classes", self.real.dim, judge.classes()),
            None => format!("{} means of pixels", self.real.dim),
        }
    }

    /// The classes asked for.
    pub fn classes(&self) -> &[u16] {
        &self.classes
    }

    /// Rows, columns, channels.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Looks at pictures.
    pub fn features(&self, pictures: &[Picture]) -> Seen {
        let pictures: Vec<&[u8]> = pictures.iter().map(|picture| picture.bytes.as_slice()).collect();
        match &self.judge {
            Some(judge) => {
                let (features, probabilities) = judge.judge_all(&pictures, self.shape);
                (features, Some(probabilities))
            }
            None => (pixel_features(&pictures, self.shape), None),
        }
    }

    /// Fréchet distance to the real pictures.
    pub fn distance(&self, (features, _): &Seen) -> Estimate {
        let real = Gaussian::fit(&self.real, 0..self.real.len());
        Estimate::bootstrap(features.len(), |pick| frechet(&Gaussian::fit(features, pick.iter().copied()), &real))
    }

    /// Share of pictures in which the judge sees the class asked for; `None` without a judge or classes.
    pub fn accuracy(&self, (_, probabilities): &Seen) -> Option<Estimate> {
        probabilities.as_ref().filter(|_| !self.classes.is_empty()).map(|probabilities| {
            let best = |row: &Vec<f64>| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
            let right: Vec<bool> =
                probabilities.iter().zip(&self.classes).map(|(row, &class)| best(row) == usize::from(class)).collect();
            Estimate::share(&right)
        })
    }

    /// All figures of a file.
    pub(super) fn figures(
        &self,
        name: String,
        (bytes, weights): (&AlignedBytes, u64),
        seen: &Seen,
        (reference, _): &Seen,
        pairs: Option<(&[Picture], &[Picture])>,
    ) -> Result<Figures, QualityError> {
        let header = *Model::from_bytes(bytes.as_slice())?.header();
        let (features, probabilities) = seen;
        let count = features.len();
        let real = Gaussian::fit(&self.real, 0..self.real.len());
        let distance =
            |features: &Features, pick: &[usize]| frechet(&Gaussian::fit(features, pick.iter().copied()), &real);
        let against = |figure: &dyn Fn(&[f32], &[f32]) -> f64| -> Option<Vec<f64>> {
            let clamped =
                |picture: &Picture| -> Vec<f32> { picture.sample.iter().map(|v| v.clamp(-1.0, 1.0)).collect() };
            pairs.map(|(found, expected)| {
                found.iter().zip(expected).map(|(a, b)| figure(&clamped(a), &clamped(b))).collect()
            })
        };
        let mean = |values: &[f64], pick: &[usize]| pick.iter().map(|&i| values[i]).sum::<f64>() / pick.len() as f64;
        let over = |values: Option<Vec<f64>>, figure: &(dyn Fn(&[f64], &[usize]) -> f64 + Sync)| {
            values.map(|values| Estimate::bootstrap(count, |pick| figure(&values, pick)))
        };
        Ok(Figures {
            name,
            arithmetic: precision_name(header.precision()),
            flash_bytes: u64::from(header.file_bytes) + weights,
            arena_bytes: u64::from(header.arena_bytes),
            fid: self.distance(seen),
            fid_above_f32: Estimate::bootstrap(count, |pick| distance(features, pick) - distance(reference, pick)),
            precision: Estimate::share(&within_manifold(features, &self.real, NEIGHBOURS)),
            recall: Estimate::share(&within_manifold(&self.real, features, NEIGHBOURS)),
            inception_score: probabilities
                .as_ref()
                .map(|probabilities| Estimate::bootstrap(count, |pick| inception_score(probabilities, pick))),
            class_accuracy: self.accuracy(seen),
            psnr_median_db: over(against(&psnr), &median),
            ssim_mean: over(against(&|a, b| ssim(a, b, self.shape)), &mean),
        })
    }
}

/// All PNG files of a folder as bytes in (row, column, channel) order.
fn read_folder(folder: &Path, shape: [usize; 3]) -> Result<Vec<Vec<u8>>, QualityError> {
    let fail = |path: &Path, what: String| QualityError::Image { path: path.into(), what };
    let entries = std::fs::read_dir(folder).map_err(|error| fail(folder, error.to_string()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")));
    paths.sort();
    if paths.len() < 8 {
        return Err(fail(folder, format!("{} PNG files; at least 8 are needed", paths.len())));
    }
    paths
        .iter()
        .map(|path| crate::image::read_png(path, shape).map_err(|error| fail(path, error.to_string())))
        .collect()
}
