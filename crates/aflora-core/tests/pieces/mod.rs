//! The update of what trains in many pieces, between others that are frozen: one launch on a GPU, and the
//! CPU's numbers.

use super::{assert_close, gpu, GPU};
use aflora_core::adapter::{normal, Role};
use aflora_core::optim::{AdamW, AdamWConfig, Arena, Gradients, GroupUpdate, Parameter};
use aflora_cuda::ops;
use tch::{Device, Kind, Tensor};

/// Of lengths that divide by four and do not, at thirty rates.
fn arena(device: Device) -> Arena {
    let parameters = (0..160i64).map(|i| {
        let name = format!("p{i}");
        let leaf = normal(&[1 + i % 7, 5 + 13 * (i % 11)], 1.0, 1, &name).to_device(device);
        let leaf = leaf.set_requires_grad(true);
        let rate = [1.0, 16.0, 1.0, 0.5][i as usize % 4] * (1.0 + (i / 16) as f64 / 10.0);
        Parameter { rate, ..Parameter::of_model(name, Role::Projection, leaf) }
    });
    Arena::new(parameters.collect()).unwrap()
}

fn draw(gradients: &Gradients, step: u64) {
    let mut flat = gradients.get(Role::Projection).unwrap().shallow_clone();
    let drawn = normal(&flat.size(), 1e-2, step, "gradients");
    tch::no_grad(|| flat.copy_(&drawn));
}

#[test]
fn what_trains_in_pieces_is_updated_as_on_a_cpu_and_what_is_frozen_does_not_move() {
    let Some(_turn) = gpu() else { return };
    let adamw = AdamW::new(AdamWConfig::default()).unwrap();
    let run = |device| {
        let mut arena = arena(device);
        let mut gradients = arena.buffer();
        let mut made: Vec<Tensor> = Vec::new();
        for step in 0..9u64 {
            draw(&gradients, step);
            if step == 3 {
                // In turns of two and three, so that neighbours of one rate and of two are left together.
                let leave: Vec<bool> = (0..160).map(|i| i % 5 < 2).collect();
                arena.freeze(Role::Projection, &leave, &mut gradients);
                made.push(gradients.flat().copy());
                made.push(arena.group(Role::Projection).unwrap().values().copy());
            }
            let group = arena.group_mut(Role::Projection).unwrap();
            let lr = if step == 5 { 0.0 } else { 1e-2 };
            let gradient = gradients.get(Role::Projection).unwrap();
            adamw.update(step + 1, [GroupUpdate { group, gradient, lr, decay: 0.1 }]);
            if step == 5 {
                made.push(group.values().copy());
            }
        }
        let group = arena.group(Role::Projection).unwrap();
        made.push(group.values().copy());
        let moving = group.values().ones_like();
        for live in group.live() {
            let _ = moving.narrow(0, live.start, live.end - live.start).zero_();
        }
        let [before, after] = [&made[1], &made[3]].map(|values| values * &moving);
        assert_eq!(before, after, "{device:?}: what is frozen moved");
        assert_ne!(made[1], made[3], "{device:?}: nothing moved");
        made
    };
    let (found, expected) = (run(GPU), run(Device::Cpu));
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_close(&i.to_string(), &found.to_device(Device::Cpu), expected, Kind::Float);
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}
