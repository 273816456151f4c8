//! Weights that are no numbers.

use crate::Result;
use tch::Tensor;

/// What is said of weights (their values, and names in the file) that are NaN or infinite.
///
/// A sum shows whether there may be any, at the cost of reading each weight once; only where it is
/// no number itself are the weights looked at one by one.
pub(super) fn unsound(weights: &[(&Tensor, &str)]) -> Result<Vec<String>> {
    if weights.is_empty() {
        return Ok(Vec::new());
    }
    let sums = weights
        .iter()
        .map(|(weight, _)| Ok(weight.f_sum(weight.kind())?.f_to_kind(tch::Kind::Float)?));
    let sums = Tensor::f_stack(&sums.collect::<Result<Vec<_>>>()?, 0)?;
    let finite = Vec::<bool>::try_from(sums.f_isfinite()?)?;
    let mut words = Vec::new();
    for ((weight, stored), _) in weights.iter().zip(finite).filter(|(_, finite)| !finite) {
        let count = |which: Tensor| which.sum(tch::Kind::Int64).int64_value(&[]);
        let (nan, infinite) = (count(weight.f_isnan()?), count(weight.f_isinf()?));
        let counted = [(nan, "are NaN"), (infinite, "are infinite")];
        let counted = counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let counted = counted.collect::<Vec<_>>().join(" and ");
        if !counted.is_empty() {
            let all = weight.numel();
            words.push(format!("of the {all} numbers of `{stored}`, {counted}"));
        }
    }
    Ok(words)
}
