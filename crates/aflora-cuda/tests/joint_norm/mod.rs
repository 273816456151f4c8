//! The joint norm of gradients, what is not finite, and clipping: held to libtorch's operations in double
//! precision.

mod emulated;

use crate::{assert_close, gpu, GPU};
use aflora_cuda::ops::{self, Judged, Pieces};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// So many gradients, one of which is another number, a loss, and the norm to clip to.
#[derive(Debug, Clone, Copy)]
struct Case {
    count: i64,
    odd: Option<f64>,
    loss: f64,
    most: f64,
}

const CASES: [Case; 8] = [
    Case { count: 1, odd: None, loss: 1.0, most: 0.01 },
    Case { count: 1000, odd: None, loss: -1.0, most: 5.0 },
    Case { count: 1000, odd: None, loss: 1.0, most: 1000.0 },
    Case { count: 70_001, odd: None, loss: 0.0, most: 1.0 },
    Case { count: 70_001, odd: Some(f64::INFINITY), loss: 0.0, most: 1.0 },
    Case { count: 513, odd: Some(f64::NAN), loss: 0.0, most: 1.0 },
    Case { count: 513, odd: None, loss: f64::NAN, most: 1.0 },
    Case { count: 513, odd: None, loss: f64::NEG_INFINITY, most: 1.0 },
];

/// Drawn on the host.
fn random(count: i64) -> Tensor {
    Tensor::randn([count], (Kind::Float, Device::Cpu))
}

impl Case {
    fn draw(&self, device: Device) -> (Tensor, Tensor) {
        let gradients = random(self.count).to_device(device);
        if let Some(odd) = self.odd {
            let _ = gradients.get(self.count - 1).fill_(odd);
        }
        (gradients, Tensor::from(self.loss as f32).to_device(device))
    }

    fn is_bad(&self) -> bool {
        self.odd.is_some() || !self.loss.is_finite()
    }
}

/// Where gradients are cleared.
const PIECES: [Range<i64>; 3] = [0..1, 3..300, 400..512];

/// `found` is what became of `before`.
fn assert_cleared(before: &Tensor, found: &Tensor) {
    let expected = before.copy();
    for Range { start, end } in PIECES {
        let _ = expected.narrow(0, start, end - start).zero_();
    }
    assert_eq!(found, &expected);
}

/// How many were bad before: in all, and in a row.
const COUNTED: [i64; 2] = [7, 3];

/// `found` is what became of `gradients`, and `counts` of [`COUNTED`].
fn assert_judged(
    case: &Case,
    gradients: &Tensor,
    judged: &Judged,
    found: &Tensor,
    counts: [i64; 2],
) {
    let what = format!("{case:?}");
    assert_eq!(counts, if case.is_bad() { [8, 4] } else { [7, 0] }, "{what}");
    let norm = gradients.to_kind(Kind::Double).norm();
    let bad = judged.bad.int64_value(&[]) != 0;
    assert_eq!(bad, case.is_bad(), "{what}");
    if bad {
        assert_eq!(judged.finite_norm.double_value(&[]), 0.0, "{what}");
        assert_eq!(found, &gradients.zeros_like(), "{what}");
    } else {
        assert_close(&what, &judged.norm, &norm, Kind::Float);
        assert_eq!(judged.finite_norm, judged.norm, "{what}");
        let factor = (case.most / (norm.double_value(&[]) + 1e-6)).min(1.0);
        assert_close(&what, found, &(gradients.to_kind(Kind::Double) * factor), Kind::Float);
        assert_eq!(found == gradients, factor == 1.0, "{what}");
    }
    if case.odd.is_some() {
        let norm = judged.norm.double_value(&[]);
        assert_eq!(norm.is_nan(), case.odd.is_some_and(f64::is_nan), "{what}");
        assert!(!norm.is_finite(), "{what}");
    }
}

#[test]
fn gradients_are_judged_and_clipped_where_they_lie() {
    let Some(_gpu) = gpu() else { return };
    for case in CASES.into_iter().chain([Case { count: 3_000_001, ..CASES[3] }]) {
        let (gradients, loss) = case.draw(GPU);
        let found = gradients.copy();
        let [total, in_a_row] = COUNTED.map(|n| Tensor::from(n).to_device(GPU));
        let judged = ops::judge(&found, &loss, [&total, &in_a_row]).unwrap();
        assert!(ops::clip(&found, &judged.finite_norm, case.most));
        let counts = [total, in_a_row].map(|count| count.int64_value(&[]));
        assert_judged(&case, &gradients, &judged, &found, counts);
        let norm = ops::joint_norm(&gradients).unwrap();
        assert!(norm.equal(&judged.norm) || case.odd.is_some_and(f64::is_nan), "{case:?}");
    }
}

#[test]
fn gradients_are_collected_where_they_belong() {
    let Some(_gpu) = gpu() else { return };
    // More than one launch takes, of sizes that are none of a vector's.
    let whole = random(100 * 103).to_device(GPU);
    let places: Vec<Tensor> = (0..100).map(|i| whole.narrow(0, 103 * i, i + 1)).collect();
    let gradients: Vec<Tensor> = (0..100).map(|i| random(i + 1).to_device(GPU)).collect();
    let expected = whole.copy();
    let put = |add: bool| {
        for (i, gradient) in (0..).zip(&gradients) {
            let mut place = expected.narrow(0, 103 * i, i + 1);
            match add {
                true => drop(place.f_add_(gradient).unwrap()),
                false => place.copy_(gradient),
            }
        }
        assert!(ops::collect(&places, &gradients, add));
        assert_eq!(whole, expected);
    };
    put(false);
    put(true);
    for (to, from) in [(&places[..2], &gradients[..1]), (&places[..1], &gradients[1..2])] {
        assert!(!ops::collect(to, from, false), "not as many");
    }
    assert!(!ops::collect(&[random(3)], &[random(3)], false), "a CPU's");
    assert_eq!(whole, expected);
}

#[test]
fn gradients_are_cleared_in_pieces() {
    let Some(_gpu) = gpu() else { return };
    let gradients = random(3000).to_device(GPU);
    let found = gradients.copy();
    assert!(ops::clear(&found, &Pieces::new(&PIECES, GPU)));
    assert_cleared(&gradients, &found);
    assert!(!ops::clear(&random(3000), &Pieces::new(&PIECES, GPU)), "a CPU's");
    assert!(!ops::clear(&found.narrow(0, 0, 500), &Pieces::new(&PIECES, GPU)), "one too short");
}

#[test]
fn what_is_not_fp32_or_not_in_one_piece_is_left_to_others() {
    let Some(_gpu) = gpu() else { return };
    let loss = Tensor::from(1f32).to_device(GPU);
    let half = random(8).to_kind(Kind::BFloat16).to_device(GPU);
    let odd = random(16).view([8, 2]).to_device(GPU).select(1, 0);
    let count = Tensor::from(0i64).to_device(GPU);
    let judge = |gradients: &Tensor, count: &Tensor| ops::judge(gradients, &loss, [count, count]);
    for gradients in [half, odd] {
        assert!(judge(&gradients, &count).is_none());
        assert!(!ops::clip(&gradients, &loss, 1.0));
    }
    assert!(judge(&random(8), &count).is_none());
    assert!(judge(&random(8).to_device(GPU), &count.to_kind(Kind::Int)).is_none());
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}
