//! A sum over tokens whose parts are too large to be kept: the loss over a vocabulary, whose logits
//! are many times larger than the states that they are made of.
//!
//! Tokens are taken a chunk at a time, and a chunk's gradient is made as soon as its part of the sum
//! is, so that nothing of it outlives it: the idea of Liger's fused cross entropy (Hsu et al. 2024,
//! arXiv 2410.10989, §3.2). What is kept are the gradients of the sum, in the shapes of what it is
//! a function of; the backward pass scales them by what flows into it.
//!
//! ```
//! use aflora_core::sum_in_chunks;
//! use tch::{Device, Kind, Reduction, Tensor};
//!
//! let head = Tensor::randn([50, 8], (Kind::Float, Device::Cpu));
//! let x = Tensor::randn([6, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! let labels = Tensor::from_slice(&[3i64, -100, 49, 0, -100, 7]);
//! let loss = |x: &Tensor, labels: &Tensor| -> aflora_core::Result<Tensor> {
//!     let logits = x.linear(&head, None::<&Tensor>);
//!     Ok(logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.1)?)
//! };
//! let plain = loss(&x, &labels)?;
//! let chunked = sum_in_chunks(&x, &labels, &[], 2, loss)?;
//! assert!(chunked.allclose(&plain, 1e-5, 1e-5, false));
//! let gradient = |of: &Tensor| Tensor::run_backward(&[of], &[&x], false, false).remove(0);
//! assert!(gradient(&chunked).allclose(&gradient(&plain), 1e-5, 1e-6, false));
//! # Ok::<(), aflora_core::Error>(())
//! ```

use crate::Result;
use tch::{Device, Kind, Tensor};

/// The label of a token that is not part of the sum.
const IGNORED: i64 = -100;

/// The sum of `part` over all tokens, `[]` in fp32, from states `x`, `[tokens, hidden]`, and
/// `labels`, `[tokens]` Int64, of `rows` tokens at a time. `part` gives the sum of some of them, in
/// which a token of label −100 counts nothing; it may read `parameters`, which then have their
/// gradients, too, and anything else that trains would have none. Without a gradient, the sum may
/// be of any shape: several at once.
///
/// As many chunks are made as the shapes of `x` and `labels` say, without waiting for a GPU, so
/// that it can be recorded. On a CPU, tokens of label −100 are left out beforehand. What fits into
/// one chunk is computed as it is.
///
/// # Errors
/// Those of `part`, or libtorch refuses.
pub fn sum_in_chunks(
    x: &Tensor,
    labels: &Tensor,
    parameters: &[&Tensor],
    rows: i64,
    part: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if labels.size()[0] <= rows {
        return part(x, labels);
    }
    let (x, labels) = match x.device() {
        Device::Cpu => {
            let counted = labels.f_ne(IGNORED)?.f_nonzero()?.f_squeeze_dim(1)?;
            (x.f_index_select(0, &counted)?, labels.f_index_select(0, &counted)?)
        }
        _ => (x.shallow_clone(), labels.shallow_clone()),
    };
    let tokens = labels.size()[0];
    if tokens <= rows {
        return part(&x, &labels);
    }
    let states = x.f_detach()?;
    let wanted: Vec<&Tensor> = parameters.iter().copied().filter(|p| p.requires_grad()).collect();
    let (mut sums, mut of_states) = (Vec::new(), Vec::new());
    let mut of_parameters: Vec<Option<Tensor>> = wanted.iter().map(|_| None).collect();
    for begin in (0..tokens).step_by(rows as usize) {
        let n = rows.min(tokens - begin);
        let chunk = states.f_narrow(0, begin, n)?.set_requires_grad(x.requires_grad());
        let sum = part(&chunk, &labels.f_narrow(0, begin, n)?)?;
        sums.push(sum.f_detach()?);
        if !sum.requires_grad() {
            continue;
        }
        let leaves = x.requires_grad().then_some(&chunk).into_iter();
        let leaves: Vec<&Tensor> = leaves.chain(wanted.iter().copied()).collect();
        let mut found = Tensor::f_run_backward(&[&sum], &leaves, false, false)?;
        let parts = found.split_off(found.len() - wanted.len());
        of_states.extend(found);
        for (sum, part) in of_parameters.iter_mut().zip(parts).filter(|(_, part)| part.defined()) {
            *sum = Some(match sum.take() {
                Some(mut sum) => sum.f_add_(&part)?,
                None => part,
            });
        }
    }
    let mut value = Tensor::f_stack(&sums, 0)?
        .f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?
        .f_to_kind(Kind::Float)?;
    if !of_states.is_empty() {
        value += without_value(&x, &Tensor::f_cat(&of_states, 0)?)?;
    }
    for (parameter, gradient) in wanted.iter().zip(of_parameters) {
        if let Some(gradient) = gradient {
            value += without_value(parameter, &gradient)?;
        }
    }
    Ok(value)
}

/// A zero, `[]`, whose gradient with respect to `of` is `gradient`, times what flows into it: in
/// fp32, so that a factor of the loss is not rounded to bf16 for all tokens alike.
fn without_value(of: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let nothing = of.f_sub(&of.f_detach()?)?.f_to_kind(Kind::Float)?;
    Ok(nothing.f_mul(gradient)?.f_sum(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Reduction;

    /// Eleven tokens of six elements and nineteen words, all of it to be differentiated.
    struct Case {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
    }

    impl Case {
        fn new(labels: [i64; 11]) -> Self {
            tch::manual_seed(5);
            let leaf = |size: &[i64]| {
                Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true)
            };
            let [x, weight, bias] = [&[11, 6][..], &[19, 6], &[19]].map(leaf);
            Case { x, weight, bias, labels: Tensor::from_slice(&labels) }
        }

        fn part(&self, x: &Tensor, labels: &Tensor, cap: f64, smoothing: f64) -> Result<Tensor> {
            let logits = (x.linear(&self.weight, Some(&self.bias)) / cap).tanh() * cap;
            let none = None::<&Tensor>;
            Ok(logits.f_cross_entropy_loss(labels, none, Reduction::Sum, IGNORED, smoothing)?)
        }

        /// The sum and its gradients, from chunks of so many tokens; the loss counts 3/7 of it.
        fn of(&self, rows: i64, cap: f64, smoothing: f64) -> Vec<Tensor> {
            let Case { x, weight, bias, labels } = self;
            let part = |x: &Tensor, labels: &Tensor| self.part(x, labels, cap, smoothing);
            let sum = sum_in_chunks(x, labels, &[weight, bias], rows, part).unwrap();
            let loss = &sum * (3.0 / 7.0);
            let mut all = Tensor::run_backward(&[&loss], &[x, weight, bias], false, false);
            all.push(sum.detach());
            all
        }
    }

    const SOME: [i64; 11] = [3, -100, 18, 0, -100, -100, 7, 7, 1, 2, -100];

    #[test]
    fn a_sum_in_chunks_and_its_gradients_are_those_of_the_whole() {
        let every = std::array::from_fn(|i| i as i64);
        for labels in [SOME, every] {
            let case = Case::new(labels);
            for (cap, smoothing) in [(1e3, 0.0), (2.0, 0.0), (1e3, 0.1), (2.0, 0.1)] {
                let whole = case.of(11, cap, smoothing);
                for rows in [1, 2, 3, 10] {
                    for (found, whole) in case.of(rows, cap, smoothing).iter().zip(&whole) {
                        let error = (found - whole).abs().max().double_value(&[]);
                        let size = whole.abs().max().double_value(&[]);
                        assert!(error <= 1e-5 * size, "{rows} {cap} {smoothing}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_but_ignored_tokens_sum_to_nothing_with_a_gradient_of_zero() {
        for found in Case::new([IGNORED; 11]).of(3, 2.0, 0.1) {
            assert_eq!(found.abs().max().double_value(&[]), 0.0);
        }
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient_and_states_get_theirs() {
        let mut case = Case::new(SOME);
        let whole = case.of(11, 2.0, 0.0);
        (case.weight, case.bias) = (case.weight.detach(), case.bias.detach());
        let Case { x, weight, bias, labels } = &case;
        let part = |x: &Tensor, labels: &Tensor| case.part(x, labels, 2.0, 0.0);
        let sum = sum_in_chunks(x, labels, &[weight, bias], 2, part).unwrap() * (3.0 / 7.0);
        let found = Tensor::run_backward(&[&sum], &[x], false, false).remove(0);
        assert!(found.allclose(&whole[0], 1e-5, 1e-6, false));
    }

    #[test]
    fn without_a_gradient_several_sums_are_made_at_once() {
        let case = Case::new(SOME);
        let _no_grad = tch::no_grad_guard();
        let parts = |x: &Tensor, labels: &Tensor| {
            let of = |smoothing| case.part(x, labels, 2.0, smoothing);
            Ok(Tensor::stack(&[of(0.1)?, of(0.0)?], 0))
        };
        let found = sum_in_chunks(&case.x, &case.labels, &[], 3, parts).unwrap();
        let whole = parts(&case.x, &case.labels).unwrap();
        assert!(!found.requires_grad() && found.allclose(&whole, 1e-5, 0.0, false));
    }

    /// Products are of bf16, the rest in fp32, as in the whole; what is rounded once more is the
    /// gradient before a factor of the loss.
    #[test]
    fn in_bf16_gradients_differ_by_one_rounding() {
        let case = Case::new(SOME);
        let x = case.x.detach().to_kind(Kind::BFloat16).set_requires_grad(true);
        let weight = case.weight.detach().to_kind(Kind::BFloat16);
        let part = |x: &Tensor, labels: &Tensor| {
            let logits = x.linear(&weight, None::<&Tensor>).to_kind(Kind::Float);
            let none = None::<&Tensor>;
            Ok(logits.f_cross_entropy_loss(labels, none, Reduction::Sum, IGNORED, 0.0)?)
        };
        let [whole, chunked] = [11, 2].map(|rows| {
            let sum = sum_in_chunks(&x, &case.labels, &[], rows, part).unwrap() * (3.0 / 7.0);
            let gradient = Tensor::run_backward(&[&sum], &[&x], false, false).remove(0);
            assert_eq!(gradient.kind(), Kind::BFloat16);
            gradient.to_kind(Kind::Float)
        });
        let error = (&chunked - &whole).abs().max().double_value(&[]);
        assert!(error <= whole.abs().max().double_value(&[]) / 64.0, "{error:e}");
    }
}
