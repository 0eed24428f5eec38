//! Which activations get 16 bits: as many as the arena allows.

use typed_index_collections::TiSlice;

use super::{ExportError, ExportOptions, ResidualWidth};
use crate::network::{Network, Role, TensorId};
use crate::plan::{fits, plan};
use crate::progress::Progress;
use crate::recipe::Shortcuts;
use crate::widths::{Widths, shares_scale};

/// The share of the arena by which activations of 16 bits may enlarge it without being asked, if it is small and if not.
const GROWTH: [u64; 2] = [16, 7];

/// Arena up to which every stream gets 16 bits without being asked.
const SMALL_ARENA: u64 = 64 * 1024;

/// The widths that the options ask for.
pub(super) fn choose(
    network: &Network,
    options: &ExportOptions,
    progress: &dyn Progress,
) -> Result<Widths, ExportError> {
    let shortcuts = options.recipe.shortcuts;
    let all = |wide: bool| Widths::new(network, network.tensors.iter().map(|_| wide).collect(), shortcuts);
    let start = match options.residual {
        _ if options.budget_ram.is_some() => all(false),
        ResidualWidth::Wide => all(true),
        ResidualWidth::Auto if arena(network, &all(true)) <= SMALL_ARENA => all(true),
        ResidualWidth::Auto | ResidualWidth::Narrow => all(false),
    };
    let needed = arena(network, &start);
    match options.budget_ram {
        Some(budget) if budget < needed => Err(ExportError::BudgetRam { budget, needed }),
        Some(budget) => Ok(widen(network, start, budget, shortcuts, progress)),
        None if options.residual == ResidualWidth::Narrow => Ok(start),
        None => {
            let [small, large] = GROWTH;
            let growth = needed / if needed <= SMALL_ARENA { small } else { large };
            Ok(widen(network, start, needed + growth, shortcuts, progress))
        }
    }
}

/// Bytes of the arena with these widths.
fn arena(network: &Network, widths: &Widths) -> u64 {
    plan(network, &widths.elements(network)).arena_bytes
}

/// Widens one after the other as long as the arena has at most `limit` bytes: streams first, which many operations read.
fn widen(network: &Network, start: Widths, limit: u64, shortcuts: Shortcuts, progress: &dyn Progress) -> Widths {
    let mut best = start;
    let attempt = |candidate: Widths, best: &mut Widths| {
        if fits(network, &candidate.elements(network), limit) {
            *best = candidate;
        }
        progress.advance(1);
    };
    let narrow_streams: Vec<TensorId> =
        narrow(&best.wide_stream).filter(|&id| network.tensors[id].role == Role::Stream).collect();
    progress.begin("widening activations", (narrow_streams.len() + network.convs().count()) as u64);
    for id in narrow_streams {
        let mut wide = best.wide_stream.clone();
        wide[id] = true;
        attempt(Widths::new(network, wide, shortcuts), &mut best);
    }
    for (id, conv) in network.convs() {
        if shares_scale(conv, shortcuts) || best.wide_ring[id] {
            progress.advance(1);
            continue;
        }
        let mut candidate = best.clone();
        candidate.wide_ring[id] = true;
        attempt(candidate, &mut best);
    }
    progress.end();
    best
}

fn narrow(wide: &TiSlice<TensorId, bool>) -> impl Iterator<Item = TensorId> {
    wide.iter_enumerated().filter(|&(_, &wide)| !wide).map(|(id, _)| id)
}
