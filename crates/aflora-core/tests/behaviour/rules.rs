//! Which matrices each rule freezes, and when, whatever the numbers.

use super::steps;
use aflora_core::adapter::{normal, AfloraRank, AfloraRankConfig, Role};
use aflora_core::freeze::{Curve, FreezeConfig, FreezeController, Rule, Score};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::{Error, Hook};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// What became of matrices whose gradients are `gradient(name, step)` times a direction, element by
/// element: by name the step of the freeze, and every thaw.
struct Played {
    frozen_at: BTreeMap<String, u64>,
    thawed: Vec<(u64, String)>,
    /// How many were not updated in each step.
    still: Vec<usize>,
}

/// Plays gradients to a rule by the steps of training, over matrices of these shapes; moves are those of
/// signs of gradients, as AdamW's nearly are.
fn played(
    config: &FreezeConfig,
    shapes: &[[i64; 2]],
    total: u64,
    gradient: impl Fn(usize, u64, &Tensor) -> Tensor,
) -> Played {
    let parameters = shapes.iter().enumerate().map(|(i, shape)| {
        let leaf = normal(shape, 1.0, 3, &i.to_string()).set_requires_grad(true);
        Parameter::of_model(i.to_string(), Role::Projection, leaf)
    });
    let mut arena = Arena::new(parameters.collect()).unwrap();
    let mut controller = FreezeController::new(config, shapes.len(), 1, total).unwrap();
    let mut gradients = arena.buffer();
    let (mut frozen_at, mut thawed, mut still) = (BTreeMap::new(), Vec::new(), Vec::new());
    for step in 0..total {
        let of = |(i, shape): (usize, &[i64; 2])| {
            let noise = normal(shape, 1.0, 7, &format!("{i} {step}"));
            gradient(i, step, &noise).reshape([-1])
        };
        let now = Tensor::cat(&shapes.iter().enumerate().map(of).collect::<Vec<_>>(), 0);
        gradients.get(Role::Projection).unwrap().shallow_clone().copy_(&now);
        // As a pass would leave it: no gradient of what is not computed.
        arena.clear_frozen(&mut gradients);
        controller.score(step, &mut arena, &gradients).unwrap();
        let check = controller.freeze(step, &mut arena, &mut gradients).unwrap();
        if let Some(check) = &check {
            let budget = config.rule != Rule::ElementQuantile && !config.thaw;
            let changes = check.frozen().next().is_some();
            assert!(changes || !budget, "scores were read at step {step}, and nothing froze");
            for name in &check.thawed {
                assert!(frozen_at.remove(name).is_some(), "{name} thawed and was not frozen");
                thawed.push((step, name.clone()));
            }
            for name in check.frozen() {
                assert_eq!(frozen_at.insert(name.to_string(), step), None, "{name} froze twice");
            }
        }
        let group = arena.group_mut(Role::Projection).unwrap();
        let left = gradients.get(Role::Projection).unwrap();
        let trained: f64 = group
            .slices(left)
            .map(|g| g.abs().sum(Kind::Double))
            .map(|s| s.double_value(&[]))
            .sum();
        let all = left.abs().sum(Kind::Double).double_value(&[]);
        assert!((all - trained).abs() < 1e-9, "step {step}: a gradient of what does not train");
        tch::no_grad(|| drop(group.values().shallow_clone().g_sub_(&(left.sign() * 0.01))));
        still.push(shapes.len() - group.len());
        controller.after_update(step, &mut arena, &gradients).unwrap();
    }
    Played { frozen_at, thawed, still }
}

/// Cubic to the last step, from step 10.
fn to_the_end(rule: Rule) -> FreezeConfig {
    FreezeConfig { rule, interval: 5, ..steps(10, 0) }
}

#[test]
fn a_budget_over_the_whole_run_is_met_at_its_end_and_never_shrinks() {
    let shapes = [[2, 3]; 8];
    for rule in Rule::ALL.into_iter().filter(|rule| rule.has_budget()) {
        for (thaw, final_share) in [(false, 1.0), (false, 0.5), (true, 1.0), (true, 0.5)] {
            if thaw && !rule.scores_at_rest() {
                continue;
            }
            let config = FreezeConfig { thaw, final_share, ..to_the_end(rule) };
            let Played { still, frozen_at, .. } =
                played(&config, &shapes, 100, |_, _, noise| noise.copy());
            assert!(still.windows(2).all(|pair| pair[0] <= pair[1]), "{rule:?}: {still:?}");
            for (step, &still) in still.iter().enumerate().filter(|(step, _)| step % 5 == 0) {
                let x = (step as f64 - 10.0).max(0.0) / 90.0;
                let wanted = 8.0 * final_share * (1.0 - (1.0 - x).powi(3)) + 1e-9;
                assert_eq!(still, wanted as usize, "{rule:?}, step {step}");
            }
            assert_eq!(frozen_at.len(), *still.last().unwrap());
        }
    }
}

#[test]
fn what_only_trembles_has_less_net_motion_than_what_goes_somewhere() {
    // Both move by 0.01 an element and step; the second half of them in the same direction.
    let shapes = [[4, 6]; 6];
    let found = played(&to_the_end(Rule::NetMotion), &shapes, 60, |i, _, noise| match i % 2 {
        0 => noise.copy(),
        _ => noise.ones_like(),
    });
    let mut order: Vec<_> =
        found.frozen_at.iter().map(|(name, step)| (*step, name.clone())).collect();
    order.sort();
    let first: Vec<&str> = order.iter().take(3).map(|(_, name)| name.as_str()).collect();
    assert!(first.iter().all(|name| ["0", "2", "4"].contains(name)), "{order:?}");
}

#[test]
fn noise_promises_no_gain_however_large_it_is() {
    // Gradients of pure noise, ten times as large as those that agree.
    let shapes = [[32, 24], [16, 20], [32, 24], [16, 20]];
    let gradient = |i: usize, _: u64, noise: &Tensor| match i < 2 {
        true => noise * 10.0,
        false => noise.ones_like() + noise,
    };
    let first = |rule| {
        let found = played(&to_the_end(rule), &shapes, 100, gradient);
        let mut order: Vec<_> =
            found.frozen_at.into_iter().map(|(name, step)| (step, name)).collect();
        order.sort();
        order.into_iter().take(2).map(|(_, name)| name).collect::<BTreeSet<_>>()
    };
    let names = |names: [&str; 2]| BTreeSet::from(names.map(String::from));
    assert_eq!(first(Rule::ExpectedGain), names(["0", "1"]));
    assert_eq!(first(Rule::MatrixRank), names(["2", "3"]), "by the size of gradients");
}

#[test]
fn a_matrix_is_measured_by_its_own_peak() {
    // The first's gradients are always the larger, and sink; the second's do not.
    let gradient = |i: usize, step: u64, noise: &Tensor| match i {
        0 => noise * (100.0 / (1.0 + step as f64)),
        _ => noise * 1e-3,
    };
    let first = |rule| {
        let config = FreezeConfig { rule, final_share: 0.5, interval: 5, ..steps(10, 20) };
        let found = played(&config, &[[4, 6]; 2], 100, gradient);
        found.frozen_at.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(first(Rule::OwnPeak), ["0"]);
    assert_eq!(first(Rule::MatrixRank), ["1"]);
}

#[test]
fn a_matrix_that_has_something_to_learn_again_thaws_and_another_freezes_in_its_place() {
    // Matrix 0 has nothing to learn up to step 60, and much from there on.
    let gradient = |i: usize, step: u64, noise: &Tensor| match (i, step < 60) {
        (0, true) => noise * 1e-3,
        (0, false) => noise * 9.0,
        _ => noise + 0.3 * (i as f64),
    };
    let config = FreezeConfig {
        rule: Rule::MatrixRank,
        curve: Curve::EaseIn,
        exponent: 1.0,
        interval: 5,
        ..steps(10, 20)
    };
    let shapes = [[4, 6]; 6];
    let without = played(&config, &shapes, 200, gradient);
    let with = played(&FreezeConfig { thaw: true, ..config }, &shapes, 200, gradient);
    assert_eq!((without.frozen_at["0"], without.thawed.len()), (39, 0));
    let back = with.thawed.iter().find(|(_, name)| name == "0").expect("it thaws").0;
    assert!((60..100).contains(&back), "{:?}", with.thawed);
    assert!(with.frozen_at["0"] > back, "it freezes again with the others");
    assert_eq!(with.still, without.still, "the budget is the same at every step");
    assert!(with.thawed.iter().all(|(step, _)| step % 5 == 0 && *step < 180));
}

#[test]
fn a_rule_is_refused_a_setting_that_it_has_no_use_for() {
    let refused = |config: FreezeConfig, words: &[&str]| {
        let error = config.validate().unwrap_err();
        assert!(matches!(error, Error::Setting { .. }));
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let of = |rule| FreezeConfig { rule, ..Default::default() };
    let relative = Score::RelativeGradient;
    for rule in [Rule::NetMotion, Rule::ExpectedGain, Rule::Random] {
        refused(FreezeConfig { score: relative, ..of(rule) }, &["freeze.score", rule.name()]);
    }
    for rule in [Rule::NetMotion, Rule::ExpectedGain, Rule::ElementQuantile, Rule::Random] {
        refused(
            FreezeConfig { thaw: true, ..of(rule) },
            &["freeze.rule", rule.name(), "freeze.thaw"],
        );
    }
    let half = FreezeConfig { final_share: 0.5, ..Default::default() };
    refused(half, &["`freeze.rule` is element_quantile", "freeze.final_share"]);
    for share in [0.0, -0.1, 1.1, f64::NAN] {
        let config = FreezeConfig { final_share: share, ..of(Rule::MatrixRank) };
        refused(config, &["freeze.final_share", "at most 1"]);
    }
    let ranks = |freeze| AfloraRankConfig { freeze, ..Default::default() };
    for (freeze, field) in [
        (FreezeConfig { thaw: true, ..of(Rule::OwnPeak) }, "freeze.rule"),
        (FreezeConfig { final_share: 0.5, ..of(Rule::OwnPeak) }, "freeze.rule"),
    ] {
        let error = AfloraRank::new(ranks(freeze)).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_rule_keeps_the_schedules_promises(
        total in 2u64..60, a in 0.0..1.0f64, b in 0.0..1.0f64, matrices in 1usize..7, seed: u64,
    ) {
        let t_i = (total as f64 * a) as u64;
        // At least two steps of saturation: the released code's first sure test is the one after T - t_f.
        let t_f = ((total - t_i) as f64 * b) as u64;
        for rule in Rule::ALL {
            let config = FreezeConfig { rule, interval: 3, ..steps(t_i, t_f) };
            let random = |i: usize, step: u64, _: &Tensor| normal(&[2, 3], 1.0, seed, &format!("{i} {step}"));
            let froze = played(&config, &vec![[2, 3]; matrices], total, random).frozen_at;
            prop_assert!(froze.values().all(|step| *step >= t_i), "{:?} before t_i", rule);
            let saturation = total - t_f;
            if t_f >= 2 {
                prop_assert_eq!(froze.len(), matrices, "{:?}: all are frozen at the end", rule);
            }
            // Rules with a budget at T - t_f itself, the released code one step later.
            let last = froze.values().max().copied().unwrap_or(0);
            prop_assert!(last <= (saturation + 1).max(t_i + 1));
        }
    }
}
