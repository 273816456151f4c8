//! Sensitivities and their smoothed means: held to libtorch's operations in double precision.

mod emulated;

use crate::{assert_close, gpu, GPU};
use aflora_cuda::ops::{self, Sensitivity, Smoothing};
use tch::{Device, Kind, Tensor};

const ALL: [Sensitivity; 3] =
    [Sensitivity::Gradient, Sensitivity::ParameterGradient, Sensitivity::RelativeGradient];

/// What is observed of `count` elements, some of them zero; on the host.
struct Case {
    values: Tensor,
    gradient: Tensor,
    observed: Option<Tensor>,
    mean: Tensor,
    deviation: Tensor,
    shares: [f64; 2],
    updated: bool,
}

fn cases(count: i64) -> Vec<Case> {
    let random = || Tensor::randn([count], (Kind::Float, Device::Cpu));
    let case = |some: bool, shares, updated| Case {
        values: random() * random().gt(-1.0),
        gradient: random(),
        observed: some.then(|| random().gt(0.0).to_kind(Kind::Float)),
        mean: random().abs(),
        deviation: random().abs(),
        shares,
        updated,
    };
    vec![
        case(false, [0.15, 0.15], false),
        case(false, [0.2, 0.6], true),
        case(true, [0.15, 0.15], false),
        case(true, [0.9, 1.0], true),
    ]
}

impl Case {
    fn sensitivity(&self, of: Sensitivity) -> Tensor {
        let [p, g] = [&self.values, &self.gradient].map(|t| t.to_kind(Kind::Double));
        let some = match of {
            Sensitivity::Gradient => g.abs(),
            Sensitivity::ParameterGradient => (&p * g).abs(),
            Sensitivity::RelativeGradient => (g / &p).abs(),
        };
        some.masked_fill(&p.eq(0.0), 0.0)
    }

    /// Mean and deviation after `now`.
    fn after(&self, now: &Tensor) -> [Tensor; 2] {
        let [before, deviation] = [&self.mean, &self.deviation].map(|t| t.to_kind(Kind::Double));
        let ones = before.ones_like();
        let seen = self.observed.as_ref().map_or(ones, |seen| seen.to_kind(Kind::Double));
        let mean = &before + (now - &before) * &seen * self.shares[0];
        let from = if self.updated { &mean } else { &before };
        let deviation = &deviation + ((now - from).abs() - &deviation) * seen * self.shares[1];
        [mean, deviation]
    }

    fn assert(&self, what: &str, of: Sensitivity, now: &Tensor, found: [&Tensor; 2]) {
        let expected = self.sensitivity(of);
        // Element by element: one that is nearly zero makes another as large as it likes.
        let error = ((now - &expected).abs() / (&expected + 1e-30)).max().double_value(&[]);
        assert!(error < 1e-6, "{what}: {error}");
        let expected = self.after(&now.to_kind(Kind::Double));
        for (found, expected) in found.into_iter().zip(&expected) {
            assert_close(what, found, expected, Kind::Float);
        }
        if let Some(observed) = &self.observed {
            let rest = observed.eq(0.0);
            for (found, before) in found.into_iter().zip([&self.mean, &self.deviation]) {
                let [found, before] = [found, before].map(|t| t.masked_select(&rest));
                assert_eq!(found, before, "{what}: what was not observed moved");
            }
        }
    }
}

#[test]
fn sensitivities_and_what_smooths_them() {
    let Some(_gpu) = gpu() else { return };
    for count in [1, 1000, 5_000_001] {
        for (i, case) in cases(count).iter().enumerate() {
            for of in ALL {
                let what = format!("{of:?}, {count} numbers, case {i}");
                let there = |t: &Tensor| t.to_device(GPU);
                let now =
                    ops::sensitivity(&there(&case.values), &there(&case.gradient), of).unwrap();
                let (mean, deviation) = (there(&case.mean), there(&case.deviation));
                let (shares, updated) = (case.shares, case.updated);
                let smoothing = Smoothing { mean: &mean, deviation: &deviation, shares, updated };
                assert!(
                    smoothing.observe(&now, case.observed.as_ref().map(there).as_ref()),
                    "{what}"
                );
                let [now, mean, deviation] =
                    [now, mean, deviation].map(|t| t.to_device(Device::Cpu));
                case.assert(&what, of, &now, [&mean, &deviation]);
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn other_kinds_and_sizes_are_left_to_others() {
    let Some(_gpu) = gpu() else { return };
    let [eight, nine] = [8, 9].map(|n| Tensor::ones([n], (Kind::Float, GPU)));
    let of = Sensitivity::Gradient;
    assert!(ops::sensitivity(&eight, &eight, of).is_some());
    assert!(ops::sensitivity(&eight, &nine, of).is_none());
    assert!(ops::sensitivity(&eight.to_kind(Kind::BFloat16), &eight, of).is_none());
    let smoothing = Smoothing { mean: &nine, deviation: &nine, shares: [0.5; 2], updated: false };
    assert!(smoothing.observe(&nine, Some(&nine)));
    assert!(!smoothing.observe(&eight, None));
    assert!(!smoothing.observe(&nine, Some(&eight)));
    assert!(!smoothing.observe(&nine.to_device(Device::Cpu), None));
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}
