//! Checkpointed blocks of a decoder with adapters train as plain ones do.

mod common;

use aflora_core::adapter::MethodConfig;
use aflora_core::optim::Gradients;
use aflora_core::{Tuner, TunerConfig};
use aflora_models::{AdaptedModel, Pattern, Targets, WriterOptions};
use common::writers::{batch, cpu, load, loss, Io};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// libtorch's generator is one for all threads: a test that seeds it runs alone.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn adapted(options: &WriterOptions, dropout: f64) -> (AdaptedModel, Tuner, Io) {
    let (model, io) = load("llama", "llama", options);
    let names = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"].map(String::from);
    let targets = Targets { target_modules: Pattern::Names(names.to_vec()), ..Default::default() };
    let mut method = MethodConfig::defaults("lora").unwrap();
    if let MethodConfig::Lora(lora) = &mut method {
        lora.dropout = dropout;
    }
    let method = method.build().unwrap();
    let model = AdaptedModel::new(model, method.as_ref(), &targets, &[], options.base, 3).unwrap();
    let tuner =
        Tuner::new(TunerConfig::default(), method.as_ref(), model.parameters(), 10, 10).unwrap();
    // Away from the start, where B is zero and so is A's gradient.
    for (i, parameter) in model.parameters().iter().enumerate() {
        tch::manual_seed(i as i64);
        let mut leaf = parameter.leaf.detach();
        let _ = leaf.normal_(0.0, 0.1);
    }
    (model, tuner, io)
}

#[test]
fn checkpointed_blocks_give_the_very_gradients() {
    let _alone = alone();
    let gradients = |checkpointing| {
        let (model, tuner, io) = adapted(&WriterOptions { checkpointing, ..cpu() }, 0.0);
        let loss = loss(&model.forward(&batch(&io, "right"), true).unwrap(), &io);
        let checkpoints = model.take_checkpoints();
        assert_eq!(checkpoints.is_empty(), !checkpointing);
        let mut gradients = tuner.arena().buffer();
        tuner.arena().add_gradients(&loss, checkpoints, &mut gradients).unwrap();
        (gradients.flat().shallow_clone(), loss)
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn checkpointed_blocks_draw_the_adapters_dropout_once() {
    let _alone = alone();
    // A dropped input has a gradient of zero in A: the same ones in both runs of a block.
    let options = WriterOptions { checkpointing: true, ..cpu() };
    let (model, tuner, io) = adapted(&options, 0.5);
    let step = |seed| {
        tch::manual_seed(seed);
        let loss = loss(&model.forward(&batch(&io, "right"), true).unwrap(), &io);
        let mut gradients = tuner.arena().buffer();
        let checkpoints = model.take_checkpoints();
        tuner.arena().add_gradients(&loss, checkpoints, &mut gradients).unwrap();
        (loss, gradients)
    };
    let of = |(loss, gradients): (Tensor, Gradients)| (loss, gradients.flat().shallow_clone());
    assert_eq!(of(step(5)), of(step(5)));
    assert_ne!(step(5).0, step(6).0);
    // The gradient is the loss's: a small step along it lowers the same draw's loss.
    let (before, gradients) = step(5);
    tch::no_grad(|| {
        for (role, group) in tuner.arena().groups() {
            let mut values = group.values().shallow_clone();
            values -= gradients.get(role).unwrap() * 1e-4;
        }
    });
    let norm = gradients.flat().square().sum(Kind::Double).double_value(&[]);
    let fell = before.double_value(&[]) - step(5).0.double_value(&[]);
    assert!((fell / (1e-4 * norm) - 1.0).abs() < 0.05, "{fell} against {}", 1e-4 * norm);
}
