//! Numbers that leave their range: found by drawing one image before the file is handed over.

use super::loaded::{Call, Loaded};
use super::prepared::Prepared;
use super::{ExportError, precision_name};

/// A sample beyond this has left the range of images altogether.
const DIVERGED: f32 = 10.0;

/// Looks at the samples of a run with `loaded`; what to know about them, for people.
///
/// # Errors
/// If a number of the run is not finite: where it first occurs, and how large it is in `reference`, the `f32` model.
pub(super) fn check(
    prepared: &Prepared,
    [reference, loaded]: [&Loaded<'_>; 2],
    samples: &[Vec<f32>],
) -> Result<Vec<String>, ExportError> {
    let Prepared { network, conditions, .. } = prepared;
    let Some(step) = samples.iter().skip(1).position(|sample| !sample.iter().all(|x| x.is_finite())) else {
        return Ok(notes(samples.last().map_or(&[], Vec::as_slice)));
    };
    let call = Call { x: &samples[step], step: step as u32, conditions };
    let found = loaded.results(network, &call);
    let expected = reference.results(network, &call);
    let first = found.iter_enumerated().find(|(_, values)| !values.iter().all(|x| x.is_finite()));
    let (operation, values) = match first {
        Some((op, _)) => (network.ops[op].0.clone(), expected[op].clone()),
        // What it makes of the results, which are finite.
        None => {
            let sample = reference.trajectory(conditions).swap_remove(step + 1);
            ("the sampler".into(), sample.into_iter().map(f64::from).collect())
        }
    };
    let is_finite = values.iter().all(|x| x.is_finite());
    let largest = if is_finite { values.iter().fold(0f64, |largest, x| largest.max(x.abs())) } else { f64::INFINITY };
    Err(ExportError::NotFinite {
        precision: precision_name(loaded.model.precision()),
        step: step + 1,
        operation,
        largest,
    })
}

fn notes(image: &[f32]) -> Vec<String> {
    let largest = image.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let mut notes = vec![];
    if largest > DIVERGED {
        notes.push(format!(
            "an image drawn for a test reaches {largest:.0}, where images end at 1: the scheduler's configuration may not be \
             the one of the training, or its first timestep has too little signal for this sampler"
        ));
    } else if image.iter().all(|x| x.abs() >= 1.0) {
        notes.push(
            "every pixel of an image drawn for a test is saturated: the checkpoint may be untrained, or the scheduler's \
             configuration not the one of the training"
                .into(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_none_are_noticed() {
        assert_eq!(notes(&[-1.0, 0.5, 1.0]), [""; 0]);
        assert!(notes(&[-1.0, 1.0, 1.25])[0].contains("saturated"));
        assert!(notes(&[-0.5, 2000.0])[0].contains("reaches 2000"));
    }
}
