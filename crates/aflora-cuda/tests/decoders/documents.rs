//! Attention within documents that lie one behind the other, held to each document's own in double precision.

use super::{assert_close, double, gpu, gradients, leaf, random, GPU};
use aflora_cuda::ops::{self, DocumentAttention};
use aflora_cuda::{Graph, Pool};
use tch::{Kind, Tensor};

/// Rows of documents by their lengths; all rows are as long.
struct Rows {
    lengths: &'static [&'static [i64]],
    /// Documents of no tokens behind the last.
    empty: usize,
}

impl Rows {
    fn length(&self) -> i64 {
        self.lengths[0].iter().sum()
    }

    fn bounds(&self) -> Tensor {
        let mut bounds = vec![0i32];
        for length in self.lengths.iter().copied().flatten() {
            bounds.push(bounds[bounds.len() - 1] + *length as i32);
        }
        bounds.extend(vec![bounds[bounds.len() - 1]; self.empty]);
        Tensor::from_slice(&bounds).to_device(GPU)
    }

    /// Each document by itself, in libtorch's operations. Weights are multiplied by what `kept` says of a row's tokens,
    /// `[batch, heads, length, length]`.
    fn apart(
        &self,
        [q, k, v]: [&Tensor; 3],
        scale: f64,
        window: Option<i64>,
        kept: Option<&Tensor>,
    ) -> Tensor {
        let group = q.size()[1] / k.size()[1];
        let repeated = |t: &Tensor| t.repeat_interleave_self_int(group, 1, None);
        let (k, v) = (repeated(k), repeated(v));
        let rows = self.lengths.iter().zip(0..).map(|(lengths, row)| {
            let mut begin = 0;
            let documents = lengths.iter().map(|&length| {
                let first = begin;
                let of = |t: &Tensor| t.narrow(0, row, 1).narrow(2, first, length);
                let (q, k, v) = (of(q), of(&k), of(&v));
                begin += length;
                let ones = Tensor::ones([length, length], (Kind::Bool, GPU));
                let seen = match window {
                    Some(window) => ones.tril(0).logical_and(&ones.triu(1 - window)),
                    None => ones.tril(0),
                };
                let scores = q.matmul(&k.transpose(2, 3)) * scale;
                let scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
                let weights = scores.softmax(-1, scores.kind());
                let weights = match kept {
                    Some(kept) => weights * of(kept).narrow(3, first, length),
                    None => weights,
                };
                weights.matmul(&v)
            });
            Tensor::cat(&documents.collect::<Vec<_>>(), 2)
        });
        let all = Tensor::cat(&rows.collect::<Vec<_>>(), 0);
        all.transpose(1, 2).flatten(2, 3)
    }
}

#[test]
fn documents_of_a_row_see_themselves_alone_and_so_do_their_gradients() {
    let Some(_turn) = gpu() else { return };
    const TWO: &[&[i64]] = &[&[5, 1, 90], &[96]];
    const THREE: &[&[i64]] = &[&[130, 3, 67], &[1, 1, 198]];
    for (lengths, empty, heads, shared, size, window) in [
        (TWO, 0, 4, 4, 64, None),
        (THREE, 29, 6, 2, 128, None),
        (THREE, 7, 4, 1, 32, Some(16)),
        (TWO, 0, 2, 1, 256, None),
    ] {
        let rows = Rows { lengths, empty };
        let what = format!("{lengths:?}, {heads} and {shared} heads of {size}, {window:?}");
        let shape = |heads| [lengths.len() as i64, heads, rows.length(), size];
        let [q, k, v] =
            [heads, shared, shared].map(|n| leaf(&random(&shape(n), Kind::BFloat16, GPU)));
        let bounds = rows.bounds();
        let of = DocumentAttention { bounds: &bounds, scale: Some(0.2), dropout: 0.0, window };
        let out = ops::document_attention(&q, &k, &v, &of);
        let out = out.unwrap_or_else(|| panic!("{what}: {:?}", ops::failure()));
        let toward = random(&out.size(), Kind::BFloat16, GPU);
        let found = gradients(&out, &toward, &[&q, &k, &v]);
        let doubles = [&q, &k, &v].map(double);
        let [a, b, c] = &doubles;
        let expected = rows.apart([a, b, c], 0.2, window, None);
        assert_close(&what, &out, &expected, Kind::BFloat16);
        let expected = gradients(&expected, &toward.to_kind(Kind::Double), &[a, b, c]);
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what}, gradient {i}"), f, e, Kind::BFloat16);
        }
    }
}

#[test]
fn documents_drop_weights_by_the_seed_and_gradients_know_which() {
    let Some(_turn) = gpu() else { return };
    for (size, dropout) in [(64, 0.25), (256, 0.25)] {
        let rows = Rows { lengths: &[&[40, 1, 23], &[64]], empty: 2 };
        let bounds = rows.bounds();
        let of = DocumentAttention { bounds: &bounds, scale: Some(0.1), dropout, window: None };
        let run = |q: &Tensor, k: &Tensor, v: &Tensor| {
            tch::manual_seed(11);
            ops::document_attention(q, k, v, &of).expect("taken")
        };
        let [q, k, v] = [0, 1, 2].map(|_| leaf(&random(&[2, 3, 64, size], Kind::BFloat16, GPU)));
        // The output is one token's weight where its value alone is 1.
        let one = Tensor::eye(64, (Kind::BFloat16, GPU)).constant_pad_nd([0, size - 64]);
        let weights = run(&q, &k, &one.expand_as(&v).contiguous());
        let weights = weights.view([2, 64, 3, size]).transpose(1, 2).narrow(3, 0, 64);
        let kept = weights.ne(0.0).to_kind(Kind::Double);
        // Of a document of n tokens, n (n + 1) / 2 pairs are seen.
        let seen = f64::from((40 * 41 + 2 + 23 * 24 + 64 * 65) / 2 * 3);
        let share = kept.sum(Kind::Double).double_value(&[]) / seen;
        assert!((share - (1.0 - dropout)).abs() < 0.02, "{share} stay");
        let out = run(&q, &k, &v);
        let toward = random(&out.size(), Kind::BFloat16, GPU);
        let found = gradients(&out, &toward, &[&q, &k, &v]);
        let doubles = [&q, &k, &v].map(double);
        let [a, b, c] = &doubles;
        let expected = rows.apart([a, b, c], 0.1, None, Some(&(kept / (1.0 - dropout))));
        assert_close("output", &out, &expected, Kind::BFloat16);
        let expected = gradients(&expected, &toward.to_kind(Kind::Double), &[a, b, c]);
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("heads of {size}, gradient {i}"), f, e, Kind::BFloat16);
        }
    }
}

#[test]
fn attention_within_documents_is_recorded_with_its_gradients_and_reads_other_bounds() {
    let Some(_turn) = gpu() else { return };
    let [q, k, v] = [0, 1, 2].map(|_| random(&[2, 4, 64, 64], Kind::BFloat16, GPU));
    let toward = random(&[2, 64, 256], Kind::BFloat16, GPU);
    let (one, other) = (
        Rows { lengths: &[&[60, 4], &[64]], empty: 1 },
        Rows { lengths: &[&[10, 54], &[33, 31]], empty: 0 },
    );
    let bounds = one.bounds();
    let work = || {
        let [q, k, v] = [&q, &k, &v].map(leaf);
        let of = DocumentAttention { bounds: &bounds, scale: None, dropout: 0.0, window: None };
        let out = ops::document_attention(&q, &k, &v, &of).expect("taken");
        let gradients = gradients(&out, &toward, &[&q, &k, &v]);
        (out.detach(), gradients)
    };
    let _ = work();
    let (graph, (out, recorded)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    for rows in [&one, &other] {
        bounds.shallow_clone().copy_(&rows.bounds());
        graph.replay().unwrap();
        let doubles = [&q, &k, &v].map(double);
        let [a, b, c] = &doubles;
        let expected = rows.apart([a, b, c], 0.125, None, None);
        assert_close("output", &out, &expected, Kind::BFloat16);
        let expected = gradients(&expected, &toward.to_kind(Kind::Double), &[a, b, c]);
        for (f, e) in recorded.iter().zip(&expected) {
            assert_close("gradient", f, e, Kind::BFloat16);
        }
    }
}
