//! From a finished run's folder to what results keep of it.

use crate::error::Result;
use crate::freezes;
use crate::history::{FreezePoint, History};
use crate::provenance::Provenance;
use crate::results::Finding;
use crate::settings::Settings;
use crate::summary::Summary;
use std::path::Path;

/// Points of a curve that are kept.
const POINTS: usize = 80;

impl Finding {
    /// What the finished run in `folder` found.
    ///
    /// # Errors
    /// One of its files is missing or damaged.
    pub fn read(folder: &Path) -> Result<Finding> {
        let summary = Summary::read(folder)?;
        let History { mut points, mut checks, .. } = History::read(folder)?;
        // What is no number has no place in JSON, nor in a picture.
        points.retain(|point| point.loss.is_finite());
        checks.retain(FreezePoint::is_finite);
        Ok(Finding {
            selection: summary.selection,
            best: summary.best,
            test: summary.test,
            by_class: summary.by_class,
            evaluations: summary.evaluations,
            parameters: summary.parameters,
            steps: summary.steps,
            early_stop: summary.early_stop,
            flops_per_token: summary.flops_per_token,
            seconds: summary.seconds,
            tokens_per_second: summary.tokens_per_second,
            peak_memory: summary.peak_memory,
            device: summary.device,
            curve: thinned(points, |_| false),
            checks: thinned(checks, |check| check.frozen > 0 || check.thawed > 0),
            matrices: freezes::read(folder)?,
            // The run's own: what `batch_size: auto` found stands there.
            settings: Settings::read(folder)?.deciding(),
            provenance: Provenance::read(folder)?.portable(),
        })
    }
}

/// At most [`POINTS`] of them, evenly, and all that `keep` wants.
fn thinned<T>(points: Vec<T>, keep: impl Fn(&T) -> bool) -> Vec<T> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(i, point)| i % every == 0 || *i == last || keep(point)).map(|(_, p)| p).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends_and_what_matters() {
        let kept = thinned((0..1000).collect(), |i| *i == 501);
        assert!(kept.len() <= POINTS + 2, "{}", kept.len());
        assert_eq!((kept[0], kept[kept.len() - 1]), (0, 999));
        assert!(kept.contains(&501));
        assert_eq!(thinned(vec![1, 2, 3], |_| false), [1, 2, 3]);
    }
}
