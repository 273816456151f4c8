//! Training with every method: what moves, what freezes, and what a run leaves.

use super::{close, fixed, freezing_lora, layers, loss, methods, parameters, SHAPES};
use aflora_core::adapter::{Layer, MethodConfig, Plain};
use aflora_core::{AdaptedLinear, Tuner, TunerConfig};
use tch::{Device, Tensor};

fn values(layers: &[AdaptedLinear]) -> Vec<(String, bool, Tensor)> {
    let of = |layer: &AdaptedLinear| {
        let adapter = layer.adapter();
        let site = adapter.site().name.clone();
        let named = |t: aflora_core::adapter::AdapterTensor| {
            (format!("{site}.{}", t.spec.name), t.trainable, t.tensor.copy())
        };
        adapter.tensors().into_iter().map(named).collect::<Vec<_>>()
    };
    layers.iter().flat_map(of).collect()
}

#[test]
fn training_lowers_the_loss_moves_what_trains_and_nothing_else() {
    let config = TunerConfig { lr: 2e-2, max_grad_norm: None, ..Default::default() };
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        let start = values(&layers);
        let before = loss(&layers).double_value(&[]);
        let mut tuner =
            Tuner::new(config.clone(), method.as_ref(), parameters(&layers), 10, 60).unwrap();
        for step in 0..60 {
            tuner.step(loss(&layers)).unwrap();
            if step == 9 {
                assert_eq!(tuner.unmoved().unwrap(), Vec::<String>::new(), "{name}");
            }
        }
        let after = loss(&layers).double_value(&[]);
        assert!(after < 0.8 * before, "{name}: {before} → {after}");
        for ((tensor, trained, then), (_, _, now)) in start.iter().zip(values(&layers)) {
            assert_eq!(*then != now, *trained, "{name}: {tensor}");
        }
    }
}

#[test]
fn ranks_fall_to_their_budget_and_what_is_saved_is_slim_and_the_same() {
    let config = TunerConfig { lr: 2e-2, max_grad_norm: None, ..Default::default() };
    for (name, method) in methods() {
        if !["adalora", "sora", "aflora_rank"].contains(&name) {
            continue;
        }
        let layers = layers(method.as_ref());
        let mut tuner =
            Tuner::new(config.clone(), method.as_ref(), parameters(&layers), 10, 60).unwrap();
        let at_start = tuner.rank_in_use().unwrap();
        assert_eq!(at_start, 16, "{name}");
        for _ in 0..60 {
            tuner.step(loss(&layers)).unwrap();
        }
        let mut rank = 0;
        for (layer, (from, to, _)) in layers.iter().zip(SHAPES) {
            let adapter = layer.adapter();
            let saved = adapter.saved();
            let layer = Layer::shape_only(adapter.site().clone());
            let mut loaded = method.attach(&[layer], 99, Device::Cpu).unwrap();
            let found = saved[0].tensor.size()[0];
            loaded[0].set_rank(found).unwrap();
            assert_eq!(loaded[0].rank(), found, "{name}");
            for (mut own, other) in loaded[0].tensors().into_iter().zip(saved) {
                assert_eq!(own.spec, other.spec);
                tch::no_grad(|| own.tensor.copy_(&other.tensor));
            }
            let weight = fixed(&[to, from], "weight");
            let [a, b] = [&loaded[0], &*adapter].map(|adapter| adapter.merged(&weight));
            assert!(close(&a, &b, 1e-5), "{name} of {from}");
            rank += found;
        }
        if name == "sora" {
            assert!(rank < 16, "some gates are exactly zero: {rank}");
        } else {
            assert_eq!(tuner.rank_in_use(), Some(8), "{name}: two a layer on average");
            // A layer that lost all its components is saved with none.
            assert_eq!(rank, 8, "{name}");
        }
    }
}

#[test]
fn matrices_of_lora_freeze_one_after_the_other_and_never_move_again() {
    let method = MethodConfig::Lora(freezing_lora()).build().unwrap();
    assert!(method.freezes());
    let layers = layers(method.as_ref());
    let config = TunerConfig { lr: 2e-2, max_grad_norm: None, ..Default::default() };
    let mut tuner = Tuner::new(config, method.as_ref(), parameters(&layers), 10, 60).unwrap();
    let remark = tuner.remark().unwrap();
    assert!(remark.contains("all of them are frozen soon after step 40 of 60"), "{remark}");
    let mut stood: Vec<(String, Tensor)> = Vec::new();
    let mut trainable = vec![tuner.trainable()];
    for _ in 0..60 {
        let before = values(&layers);
        let report = tuner.step(loss(&layers)).unwrap();
        for name in report.check.iter().flat_map(|check| check.frozen()) {
            let (_, _, value) = before.iter().find(|(tensor, ..)| tensor == name).unwrap();
            stood.push((name.to_string(), value.copy()));
        }
        let now = values(&layers);
        for (name, value) in &stood {
            let found = now.iter().find(|(tensor, ..)| tensor == name).unwrap();
            assert_eq!(found.2, *value, "{name}");
        }
        trainable.push(tuner.trainable());
    }
    assert_eq!(stood.len(), 8, "A and B of every layer");
    trainable.dedup();
    assert!(trainable.len() > 3 && trainable.last() == Some(&0), "{trainable:?}");
}

#[test]
fn components_that_froze_never_move_again() {
    let (_, method) = methods().pop().unwrap();
    assert_eq!(method.name(), "aflora_rank");
    let layers = layers(method.as_ref());
    let config = TunerConfig { lr: 2e-2, max_grad_norm: None, ..Default::default() };
    let mut tuner = Tuner::new(config, method.as_ref(), parameters(&layers), 10, 60).unwrap();
    // Layer, component, its row of A and column of B as they were before the step that froze it.
    let mut stood: Vec<(usize, i64, Tensor, Tensor)> = Vec::new();
    let component = |i: usize, k: i64| {
        let tensors = layers[i].adapter().tensors();
        (tensors[0].tensor.get(k).copy(), tensors[1].tensor.select(1, k).copy())
    };
    let mut partly = false;
    for _ in 0..60 {
        let now: Vec<Vec<_>> = (0..4).map(|i| (0..4).map(|k| component(i, k)).collect()).collect();
        let report = tuner.step(loss(&layers)).unwrap();
        for name in report.check.iter().flat_map(|c| c.frozen()) {
            let (site, k) = name.split_once(".component").unwrap();
            let (i, k): (usize, i64) = (site[5..].parse().unwrap(), k.parse().unwrap());
            let (row, column) = &now[i][k as usize];
            stood.push((i, k, row.copy(), column.copy()));
        }
        partly |= !stood.is_empty() && stood.len() < 8;
        for (i, k, row, column) in &stood {
            assert_eq!(component(*i, *k), (row.copy(), column.copy()), "layer {i}, component {k}");
        }
    }
    assert!(partly, "they freeze one by one");
    assert_eq!(stood.len(), 8, "all of both feed-forward layers");
}

#[test]
fn what_needs_a_hook_refuses_to_train_without_it() {
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        let tuner = Tuner::new(TunerConfig::default(), &Plain::Head, parameters(&layers), 10, 60);
        let needs = ["adalora", "sora"].contains(&name);
        match tuner {
            Err(error) => {
                assert!(needs, "{name}");
                assert!(
                    error.to_string().contains("only trains with its method's hook"),
                    "{error}"
                );
            }
            Ok(_) => assert!(!needs, "{name} would train at full rank, and nobody would know"),
        }
    }
}
