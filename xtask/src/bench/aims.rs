//! What single layers are to take beside CMSIS-NN's fewest instructions, and which do not.

use super::measured::Measured;

/// Groups of layers that have an aim in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// 3×3 of 32 input channels and more.
    Wide,
    /// 3×3 of 16.
    Narrow,
    /// 3×3 of one and three.
    Few,
    Pointwise,
    Dense,
    Sum,
    Softmax,
    Scores,
}

impl Group {
    fn of(layer: &str) -> Option<Self> {
        let (kind, rest) = layer.split_once('_')?;
        let inputs = rest.split('x').next().and_then(|inputs| inputs.parse().ok());
        Some(match (kind, inputs) {
            ("conv3x3" | "conv3x3s2", Some(32..)) => Group::Wide,
            ("conv3x3", Some(16)) => Group::Narrow,
            ("conv3x3", Some(1 | 3)) => Group::Few,
            ("conv1x1", _) => Group::Pointwise,
            ("fc", _) => Group::Dense,
            ("add", _) => Group::Sum,
            ("softmax", _) => Group::Softmax,
            ("bmm", _) => Group::Scores,
            _ => return None,
        })
    }
}

/// The ratio that a layer is to have on a core: with weights as they are and little scratch, and at best, whatever is stored.
fn aim(core: &str, layer: &str) -> Option<[f64; 2]> {
    let group = Group::of(layer)?;
    // By the order of the groups; the first two have one for each case.
    let aims: [f64; 10] = match core {
        "M4F" | "M33" => [0.50, 0.17, 0.45, 0.22, 0.40, 0.50, 0.65, 0.50, 0.12, 0.50],
        "M7" => [0.52, 0.18, 0.46, 0.23, 0.40, 0.52, 0.65, 0.50, 0.12, 0.50],
        "M55" => [0.65, 0.46, 0.55, 0.50, 0.45, 0.60, 0.95, 0.95, 0.60, 0.70],
        "M3" => [0.65, 0.36, 0.65, 0.45, 0.45, 0.60, 0.65, 0.50, 0.12, 0.50],
        "M0+" => [0.45, 0.25, 0.48, 0.32, 0.35, 0.45, 0.50, 0.40, 0.08, 0.45],
        _ => return None,
    };
    let both = |at: usize| Some([aims[at]; 2]);
    match group {
        Group::Wide => Some([aims[0], aims[1]]),
        Group::Narrow => Some([aims[2], aims[3]]),
        Group::Few => both(4),
        Group::Pointwise => both(5),
        Group::Dense => both(6),
        Group::Sum => both(7),
        Group::Softmax => both(8),
        Group::Scores => both(9),
    }
}

/// Prints each layer that misses an aim.
pub(super) fn print_missed(core: &str, measured: &[Measured]) {
    let mut aims = 0;
    for layer in measured {
        let (Some(aim), Some(small)) = (aim(core, layer.layer), layer.ratio_to_cmsis_nn) else { continue };
        let fast = layer.fast_ratio_to_cmsis_nn.unwrap_or(small);
        for (name, found, aim) in [("as it is", small, aim[0]), ("at best", fast, aim[1])] {
            aims += 1;
            // To two digits, as aims are.
            if (100.0 * found).round() > (100.0 * aim).round() {
                println!("missed: {} {name}: {found:.2} of CMSIS-NN's, not {aim:.2}", layer.layer);
            }
        }
    }
    if aims == 0 {
        println!("there are no aims for {core}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::{LAYERS, SUM};
    use super::*;

    #[test]
    fn every_layer_has_an_aim() {
        let parts = [SUM[0].name, "softmax_64x64", "bmm_64x64x32"];
        for core in ["M4F", "M33", "M7", "M55", "M3", "M0+"] {
            for name in LAYERS.iter().map(|layer| layer.name).chain(parts) {
                assert!(aim(core, name).is_some(), "{name} on {core}");
            }
        }
        assert_eq!(aim("M0+", "conv3x3_64x64_4x4"), Some([0.45, 0.25]));
        assert_eq!(aim("M3", "conv3x3s2_32x32_32x32"), Some([0.65, 0.36]));
        assert_eq!(aim("M7", "conv3x3_16x16_8x8"), Some([0.46, 0.23]));
        assert_eq!(aim("M55", "fc_pc_64x256"), Some([0.95, 0.95]));
        assert_eq!(aim("RV32IMC", "conv3x3_64x64_4x4"), None);
    }
}
