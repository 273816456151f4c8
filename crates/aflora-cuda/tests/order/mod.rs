//! Means of pieces of a flat buffer, and the k-th smallest number in them: held to libtorch's operations.

mod emulated;

use crate::{assert_close, gpu, GPU};
use aflora_cuda::ops::{self, Pieces};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// A buffer, `[n]`, and stretches of it.
struct Case {
    what: &'static str,
    flat: Tensor,
    stretches: Vec<Range<i64>>,
}

/// On the host.
fn cases(most: i64) -> Vec<Case> {
    let random = |n| Tensor::randn([n], (Kind::Float, Device::Cpu));
    // As scores are: products of small numbers, many of them in few powers of two.
    let scores = |n| (random(n) * 1e-4).abs() * (random(n) * 1e-4).abs();
    let odd = random(700);
    for (place, number) in
        [(3, f64::NAN), (699, f64::NAN), (5, f64::INFINITY), (6, f64::NEG_INFINITY)]
    {
        let _ = odd.get(place).fill_(number);
    }
    let case = |what, flat, ends: &[[i64; 2]]| {
        let stretches = ends.iter().map(|&[begin, end]| begin..end).collect();
        Case { what, flat, stretches }
    };
    vec![
        case("one number", random(1), &[[0, 1]]),
        case("signs", random(1500), &[[0, 600], [700, 1500]]),
        case("scores", scores(most), &[[0, most / 3], [most / 2, most]]),
        case("equal numbers", Tensor::ones([2000], (Kind::Float, Device::Cpu)), &[[0, 2000]]),
        case("steps", random(3000).round(), &[[1, 2], [2, 5], [10, 2999]]),
        case("numbers that are not finite", odd, &[[0, 700]]),
        case("beside NaNs", Tensor::cat(&[random(9), random(9) / 0.0 * 0.0], 0), &[[0, 9]]),
    ]
}

impl Case {
    fn gathered(&self) -> Tensor {
        let parts: Vec<Tensor> =
            self.stretches.iter().map(|s| self.flat.narrow(0, s.start, s.end - s.start)).collect();
        Tensor::cat(&parts, 0)
    }

    fn means(&self) -> Tensor {
        let mean =
            |s: &Range<i64>| self.flat.narrow(0, s.start, s.end - s.start).mean(Kind::Double);
        Tensor::stack(&self.stretches.iter().map(mean).collect::<Vec<_>>(), 0)
    }

    /// Places to look at: both ends and some between.
    fn places(&self) -> Vec<i64> {
        let n = self.gathered().numel() as i64;
        let mut places = vec![1, 2, n / 7, n / 2, n - n / 50, n - 1, n];
        places.retain(|k| (1..=n).contains(k));
        places
    }

    /// The same number, to the bit but for a zero's sign.
    fn assert_kth(&self, k: i64, found: f64) {
        let (expected, _) = self.gathered().kthvalue(k, 0, false);
        let expected = expected.double_value(&[]);
        let same = found == expected || found.is_nan() && expected.is_nan();
        assert!(same, "{}, {k}th smallest: {found} in place of {expected}", self.what);
    }

    fn assert_means(&self, found: &Tensor) {
        let expected = self.means();
        assert_eq!(found.isnan(), expected.isnan(), "{}", self.what);
        let finite = |t: &Tensor| t.nan_to_num(0.0, None, None);
        assert_close(self.what, &finite(found), &finite(&expected), Kind::Float);
    }
}

#[test]
fn means_and_the_kth_smallest_of_pieces() {
    let Some(_gpu) = gpu() else { return };
    for case in cases(3_000_000) {
        let flat = case.flat.to_device(GPU);
        let cut = Pieces::new(&case.stretches, GPU);
        for k in case.places() {
            let found = ops::kth_smallest(&flat, &cut, k).unwrap();
            assert_eq!(found.size(), [1]);
            case.assert_kth(k, found.double_value(&[0]));
        }
        let whole = Pieces::whole(case.stretches.clone(), GPU);
        case.assert_means(&ops::means(&flat, &whole).unwrap().to_device(Device::Cpu));
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn other_kinds_and_places_are_left_to_others() {
    let Some(_gpu) = gpu() else { return };
    let flat = Tensor::ones([8], (Kind::Float, GPU));
    let [here, there] = [GPU, Device::Cpu].map(|device| Pieces::new(&[0..4, 4..8], device));
    assert!(ops::means(&flat, &here).is_some());
    assert!(ops::means(&flat, &there).is_none());
    assert!(ops::means(&flat.to_kind(Kind::BFloat16), &here).is_none());
    assert!(ops::kth_smallest(&flat, &Pieces::new(&[], GPU), 1).is_none());
    assert!(ops::kth_smallest(&flat.to_device(Device::Cpu), &there, 1).is_none());
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}
