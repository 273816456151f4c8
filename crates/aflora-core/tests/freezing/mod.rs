//! Freeze tests on a GPU, of every rule: the scores, thresholds and decisions of a CPU.

use super::{gpu, GPU};
use aflora_core::adapter::{normal, Role};
use aflora_core::freeze::{FreezeCheck, FreezeConfig, FreezeController, Rule};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::{Hook, Span};
use aflora_cuda::ops;
use tch::{Device, Kind, Tensor};

const MATRICES: i64 = 40;
const STEPS: u64 = 60;

/// Of lengths that divide by four and do not.
fn arena(device: Device) -> Arena {
    let parameters = (0..MATRICES).map(|i| {
        let name = format!("p{i}");
        let leaf = normal(&[2 + i % 7, 5 + 130 * (i % 11)], 1.0, 1, &name).to_device(device);
        Parameter::of_model(name, Role::Projection, leaf.set_requires_grad(true))
    });
    Arena::new(parameters.collect()).unwrap()
}

/// The tests of a run whose gradients differ from matrix to matrix and fade at different paces. Without `foresight` each is
/// read where it is made, as by a run that was taken up right before.
fn played(config: &FreezeConfig, device: Device, foresight: bool) -> Vec<FreezeCheck> {
    let mut arena = arena(device);
    let mut controller = FreezeController::new(config, MATRICES as usize, 1, STEPS).unwrap();
    let mut gradients = arena.buffer();
    let n = gradients.get(Role::Projection).unwrap().numel() as i64;
    let sizes: Vec<i64> = arena
        .group(Role::Projection)
        .unwrap()
        .parameters()
        .map(|p| p.leaf.numel() as i64)
        .collect();
    let mut checks = Vec::new();
    for step in 0..STEPS {
        let size = |i: i64| 1e-3 * (1.0 + i as f64) * (-(step as f64) * i as f64 / 1000.0).exp();
        let sizes = sizes
            .iter()
            .zip(0..)
            .map(|(n, i)| Tensor::full([*n], size(i), (Kind::Float, Device::Cpu)));
        let scale = Tensor::cat(&sizes.collect::<Vec<_>>(), 0);
        let drawn = (normal(&[n], 1.0, step, "gradients") + 0.3) * scale;
        gradients.get(Role::Projection).unwrap().shallow_clone().copy_(&drawn);
        arena.clear_frozen(&mut gradients);
        controller.score(step, &mut arena, &gradients).unwrap();
        checks.extend(controller.freeze(step, &mut arena, &mut gradients).unwrap());
        let group = arena.group_mut(Role::Projection).unwrap();
        let left = gradients.get(Role::Projection).unwrap();
        tch::no_grad(|| drop(group.values().shallow_clone().g_sub_(&(left.sign() * 0.01))));
        controller.after_update(step, &mut arena, &gradients).unwrap();
        if !foresight {
            controller.restore(&controller.state(), &arena).unwrap();
        }
    }
    checks
}

/// A test every so many steps.
fn from_the_start(interval: u64) -> FreezeConfig {
    let (t_i, t_f) = (Span::Steps(5), Span::Steps(10));
    FreezeConfig { interval, t_i, t_f, ..Default::default() }
}

fn assert_near(what: &str, found: f64, expected: f64) {
    let error = (found - expected).abs();
    assert!(error <= 1e-4 * expected.abs().max(1e-12), "{what}: {found} in place of {expected}");
}

#[test]
fn every_rule_freezes_what_it_freezes_on_a_cpu() {
    let Some(_turn) = gpu() else { return };
    for rule in Rule::ALL {
        for thaw in [false, true] {
            if thaw && !rule.scores_at_rest() {
                continue;
            }
            let config = FreezeConfig { rule, thaw, ..from_the_start(5) };
            let (found, expected) =
                (played(&config, GPU, true), played(&config, Device::Cpu, true));
            assert!(found.iter().flat_map(FreezeCheck::frozen).count() >= MATRICES as usize);
            assert_eq!(found.len(), expected.len(), "{rule:?}");
            for (found, expected) in found.iter().zip(&expected) {
                let what = format!("{rule:?}, thaw: {thaw}, step {}", expected.step);
                assert_eq!(found.step, expected.step, "{what}");
                assert_eq!(found.thawed, expected.thawed, "{what}");
                assert_eq!(found.matrices.len(), expected.matrices.len(), "{what}");
                for (found, expected) in found.matrices.iter().zip(&expected.matrices) {
                    let what = format!("{what}, {}", expected.name);
                    assert_eq!(found.name, expected.name, "{what}");
                    assert_near(&what, found.score, expected.score);
                    assert_eq!(found.frozen, expected.frozen, "{what}");
                }
                assert_eq!(found.threshold.is_some(), expected.threshold.is_some(), "{what}");
                let thresholds = [found, expected].map(|check| check.threshold.unwrap_or(0.0));
                assert_near(&what, thresholds[0], thresholds[1]);
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn a_test_that_is_read_ahead_is_the_one_that_is_read_in_its_step() {
    let Some(_turn) = gpu() else { return };
    for interval in [1, 4, 5] {
        let config = from_the_start(interval);
        let [ahead, within] = [true, false].map(|foresight| played(&config, GPU, foresight));
        assert!(ahead.iter().flat_map(FreezeCheck::frozen).count() >= MATRICES as usize);
        assert_eq!(ahead, within, "interval {interval}");
    }
    // It is on its way behind the update before, and given up where a run is taken up.
    let mut arena = arena(GPU);
    let mut controller =
        FreezeController::new(&from_the_start(10), MATRICES as usize, 1, STEPS).unwrap();
    let gradients = arena.buffer();
    let coming = |controller: &FreezeController| format!("{controller:?}").contains("Coming");
    for step in 0..20 {
        controller.score(step, &mut arena, &gradients).unwrap();
        assert!(!coming(&controller) || step == 10, "step {step}");
        controller.after_update(step, &mut arena, &gradients).unwrap();
        assert_eq!(coming(&controller), step + 1 == 10 || step + 1 == 20, "step {step}");
    }
    controller.restore(&controller.state(), &arena).unwrap();
    assert!(!coming(&controller));
}
