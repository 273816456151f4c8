//! What every method checks of its settings and its layers.

use super::site::Layer;
use crate::error::check;
use crate::{Error, Result};
use std::collections::HashSet;

/// Checks layers and `rank` once for all methods.
///
/// A rank beyond the features of the widest layer, in `widths`, adds nothing and takes memory
/// without end: 1 for matrices that train; more for random ones, of which only vectors train.
pub(super) fn check_layers(layers: &[Layer], rank: i64, widths: i64) -> Result<()> {
    let mut widest = None;
    let mut names = HashSet::new();
    for Layer { site, .. } in layers {
        check("in_features", site.in_features, site.in_features > 0, "positive")?;
        check("out_features", site.out_features, site.out_features > 0, "positive")?;
        if !names.insert(&site.name) {
            return Err(Error::DuplicateName(site.name.clone()));
        }
        widest = widest.max(Some(site.in_features.max(site.out_features)));
    }
    check("rank", rank, rank > 0, "a positive number")?;
    let Some(widest) = widest else { return Ok(()) };
    let most = widths.saturating_mul(widest);
    let expected = format!("at most {most}: its layers have {widest} features at the most");
    check("rank", rank, rank <= most, expected)
}

/// Checks a dropout rate.
pub(super) fn check_dropout(dropout: f64) -> Result<()> {
    let ok = (0.0..1.0).contains(&dropout);
    check("dropout", dropout, ok, "at least 0 and below 1")
}
