//! What holds for every run, whatever the numbers.

mod golden;
mod methods;
mod rules;
mod state;
mod step;

use aflora_core::adapter::{
    normal, AdaLoraConfig, Aflora, AfloraConfig, Layer, Lora, LoraConfig, Method, MethodConfig,
    PmTrainable, Role, SoraConfig,
};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::{AdaptedLinear, Block, Error, Site, Span, Tuner, TunerConfig};
use std::cell::Cell;
use tch::{nn, nn::Module, Device, Kind, Tensor};

/// Normal values, new ones at each call; a test's own, whatever other tests do meanwhile.
fn random(shape: &[i64]) -> Tensor {
    thread_local!(static CALLS: Cell<u64> = const { Cell::new(0) });
    normal(shape, 1.0, CALLS.replace(CALLS.get() + 1), "test")
}

fn linear(from: i64, to: i64) -> nn::Linear {
    nn::Linear { ws: random(&[to, from]) * 0.3, bs: Some(random(&[to])) }
}

/// A small network of two adapted layers and its loss on fixed data.
struct Toy {
    layers: Vec<AdaptedLinear>,
    x: Tensor,
    y: Tensor,
}

impl Toy {
    fn new(method: &dyn Method) -> Self {
        let fixed = |shape: &[i64], name: &str| normal(shape, 1.0, 1, name);
        let linear = |from, to, name| nn::Linear {
            ws: fixed(&[to, from], name) * 0.3,
            bs: Some(fixed(&[to], name)),
        };
        let plain = [("one", linear(6, 10, "one")), ("two", linear(10, 3, "two"))];
        let wrap = |(name, layer)| AdaptedLinear::wrap(name, layer, Block::Ffn, method, 5).unwrap();
        let layers = plain.map(wrap).into_iter().collect();
        let y = Tensor::arange(16, (Kind::Int64, Device::Cpu)).remainder(3);
        Toy { layers, x: fixed(&[16, 6], "x"), y }
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.layers.iter().flat_map(|l| l.adapter().parameters()).collect()
    }

    fn loss_on(&self, rows: std::ops::Range<i64>) -> Tensor {
        let part = |t: &Tensor| t.narrow(0, rows.start, rows.end - rows.start);
        let hidden = self.layers[0].forward(&part(&self.x)).relu();
        self.layers[1].forward(&hidden).cross_entropy_for_logits(&part(&self.y))
    }

    fn loss(&self) -> Tensor {
        self.loss_on(0..16)
    }

    fn values(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for layer in &self.layers {
            let adapter = layer.adapter();
            for t in adapter.tensors() {
                all.push((format!("{}.{}", adapter.site().name, t.spec.name), t.tensor.copy()));
            }
        }
        all
    }
}

fn aflora(freeze: FreezeConfig) -> Aflora {
    Aflora::new(AfloraConfig { freeze, ..Default::default() }).unwrap()
}

fn steps(t_i: u64, t_f: u64) -> FreezeConfig {
    FreezeConfig { t_i: Span::Steps(t_i), t_f: Span::Steps(t_f), ..Default::default() }
}

fn quick() -> TunerConfig {
    TunerConfig { lr: 5e-2, max_grad_norm: Some(1.0), weight_decay: 0.1, ..Default::default() }
}

#[test]
fn a_frozen_matrix_never_moves_again() {
    let method = aflora(FreezeConfig { interval: 2, ..steps(4, 30) });
    let toy = Toy::new(&method);
    let mut tuner = Tuner::new(quick(), &method, toy.parameters(), 5, 40).unwrap();
    let mut stood: Vec<(String, Tensor)> = Vec::new();
    for _ in 0..40 {
        let before = toy.values();
        let report = tuner.step(toy.loss()).unwrap();
        for name in report.check.iter().flat_map(|c| c.frozen()) {
            // As it was before the very step that froze it.
            stood.extend(
                before.iter().filter(|(n, _)| n == name).map(|(n, t)| (n.clone(), t.copy())),
            );
        }
        for (name, value) in &stood {
            let now = toy.values().into_iter().find(|(n, _)| n == name).unwrap().1;
            assert_eq!(now, *value, "{name} moved at step {}", report.step);
        }
    }
    assert_eq!(stood.len(), 4, "all four matrices froze");
    let counts = tuner.accounting();
    assert_eq!((counts.at_start, counts.at_end), (137, 21));
    assert!(counts.time_average() > 21.0 && counts.time_average() < 137.0);
    // The vectors went on: what is left of the arena still trains.
    let before = toy.values();
    tuner.step(toy.loss()).unwrap();
    assert_eq!(tuner.arena().trainable(true), 21);
    drop(before);
}

#[test]
fn training_lowers_the_loss_and_moves_every_adapter() {
    for method in [
        Box::new(aflora(steps(20, 40))) as Box<dyn Method>,
        Box::new(Lora::new(LoraConfig::default()).unwrap()),
    ] {
        let toy = Toy::new(method.as_ref());
        let start = toy.values();
        let before = toy.loss().double_value(&[]);
        let mut tuner = Tuner::new(quick(), method.as_ref(), toy.parameters(), 10, 80).unwrap();
        for _ in 0..80 {
            tuner.step(toy.loss()).unwrap();
        }
        let after = toy.loss().double_value(&[]);
        assert!(after < 0.6 * before, "{}: {before} → {after}", method.name());
        for ((name, now), (_, then)) in toy.values().iter().zip(&start) {
            assert_ne!(now, then, "{name} never moved");
        }
    }
}

#[test]
fn a_fresh_adapter_changes_nothing_and_only_b_has_a_gradient() {
    let method = aflora(FreezeConfig::default());
    let layer = linear(6, 10);
    let plain = nn::Linear { ws: layer.ws.copy(), bs: layer.bs.as_ref().map(Tensor::copy) };
    let adapted = AdaptedLinear::wrap("l", layer, Block::Ffn, &method, 3).unwrap();
    let x = random(&[2, 7, 6]);
    let y = adapted.forward(&x);
    assert_eq!(y, plain.forward(&x));
    y.square().sum(Kind::Float).backward();
    for t in adapted.adapter().tensors() {
        let moved = t.tensor.grad().abs().max().double_value(&[]) > 0.0;
        assert_eq!(moved, t.spec.name == "aflora_b", "{}", t.spec.name);
    }
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let method = aflora(FreezeConfig::default());
    let a = |name: &str, seed| {
        let layer = Layer::shape_only(Site::new(name, 24, 8, Block::Ffn));
        method.attach(&[layer], seed, Device::Cpu).unwrap()[0].tensors()[0].tensor.copy()
    };
    assert_eq!(a("x", 1), a("x", 1));
    assert_ne!(a("x", 1), a("x", 2));
    assert_ne!(a("x", 1), a("y", 1));
    let bound = (6.0f64 / 24.0).sqrt();
    let largest = a("x", 1).abs().max().double_value(&[]);
    assert!(largest <= bound && largest > 0.8 * bound, "U(±√(6 / fan_in)): {largest} {bound}");
}

#[test]
fn dropout_acts_in_training_only() {
    let config = AfloraConfig { dropout: 0.5, ..Default::default() };
    let adapted =
        AdaptedLinear::wrap("l", linear(6, 10), Block::Ffn, &Aflora::new(config).unwrap(), 3)
            .unwrap();
    for mut t in adapted.adapter().tensors() {
        tch::no_grad(|| t.tensor.copy_(&random(&t.tensor.size())));
    }
    let x = random(&[5, 6]);
    assert_eq!(adapted.forward(&x), adapted.forward(&x));
    adapted.adapter().set_training(true);
    assert_ne!(adapted.forward(&x), adapted.forward(&x));
    adapted.adapter().set_training(false);
    assert_eq!(adapted.forward(&x), adapted.forward(&x));
}

#[test]
fn counts_are_the_papers() {
    // DeBERTaV3-base: 12 layers of q, k, v, attention output, intermediate, output.
    let mut layers = Vec::new();
    for layer in 0..12 {
        for (name, from, to, block) in [
            ("q", 768, 768, Block::Attention),
            ("k", 768, 768, Block::Attention),
            ("v", 768, 768, Block::Attention),
            ("o", 768, 768, Block::Attention),
            ("intermediate", 768, 3072, Block::Ffn),
            ("output", 3072, 768, Block::Ffn),
        ] {
            let name = format!("{layer}.{name}");
            layers.push(Layer::shape_only(Site::new(name, from, to, block)));
        }
    }
    let count = |method: &dyn Method| {
        let formula: i64 = layers.iter().map(|l| method.trainable_count(&l.site)).sum();
        let real: i64 = layers
            .iter()
            .flat_map(|l| method.attach(std::slice::from_ref(l), 0, Device::Cpu).unwrap())
            .flat_map(|a| a.parameters())
            .map(|p| p.leaf.numel() as i64)
            .sum();
        assert_eq!(formula, real, "{}", method.name());
        real
    };
    let with = |pm_trainable, mode| {
        let freeze = FreezeConfig { mode, ..Default::default() };
        count(&Aflora::new(AfloraConfig { pm_trainable, freeze, ..Default::default() }).unwrap())
    };
    assert_eq!(with(PmTrainable::Ffn, FreezeMode::Adaptive), 451_872);
    assert_eq!(with(PmTrainable::Ffn, FreezeMode::Start), 83_232);
    assert_eq!(with(PmTrainable::None, FreezeMode::Adaptive), 83_232);
    assert_eq!(with(PmTrainable::All, FreezeMode::Never), 746_784);
    assert_eq!(with(PmTrainable::Attention, FreezeMode::Never), 746_784 - 368_640);
    assert_eq!(count(&Lora::new(LoraConfig::default()).unwrap()), 1_327_104);
}

#[test]
fn accumulated_halves_are_one_batch() {
    let run = |halves: bool| {
        let method = aflora(FreezeConfig { mode: FreezeMode::Never, ..Default::default() });
        let toy = Toy::new(&method);
        let mut tuner = Tuner::new(quick(), &method, toy.parameters(), 5, 10).unwrap();
        for _ in 0..10 {
            if halves {
                tuner.backward(toy.loss_on(0..8) / 2.0).unwrap();
                tuner.backward(toy.loss_on(8..16) / 2.0).unwrap();
                tuner.update().unwrap();
            } else {
                tuner.step(toy.loss()).unwrap();
            }
        }
        toy.values()
    };
    for ((name, a), (_, b)) in run(true).iter().zip(run(false)) {
        assert!(a.allclose(&b, 1e-4, 1e-5, false), "{name}");
    }
}

/// What a method adds to the loss is the update's: in four parts it counts as often as in one.
#[test]
fn a_penalty_counts_once_an_update() {
    let adalora = AdaLoraConfig { rank: 3, target_rank: 2, ..Default::default() };
    let sora = SoraConfig { rank: 3, ..Default::default() };
    for config in [MethodConfig::AdaLora(adalora), MethodConfig::Sora(sora)] {
        let method = config.build().unwrap();
        let toy = Toy::new(method.as_ref());
        let mut tuner = Tuner::new(quick(), method.as_ref(), toy.parameters(), 5, 10).unwrap();
        let mut gradient = |parts: i32| {
            for _ in 0..parts {
                tuner.backward(toy.loss() / f64::from(parts)).unwrap();
            }
            let flat = tuner.gradients().flat().copy();
            tuner.discard();
            flat
        };
        let (whole, parts) = (gradient(1), gradient(4));
        assert!(whole.allclose(&parts, 1e-4, 1e-6, false), "{}", method.name());
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let run = || {
        let method = aflora(steps(3, 10));
        let toy = Toy::new(&method);
        let mut tuner = Tuner::new(quick(), &method, toy.parameters(), 5, 20).unwrap();
        for _ in 0..20 {
            tuner.step(toy.loss()).unwrap();
        }
        toy.values()
    };
    assert_eq!(run(), run());
}

#[test]
fn what_cannot_be_trained_is_refused_in_words() {
    let leaf = |kind| Tensor::zeros([2], (kind, Device::Cpu));
    let parameter = |name: &str, leaf: Tensor| Parameter::of_model(name, Role::Head, leaf);
    let text = |parameters| Arena::new(parameters).unwrap_err().to_string();
    assert!(text(vec![]).contains("nothing to train"));
    assert!(text(vec![parameter("w", leaf(Kind::Float))]).contains("`w` cannot be trained"));
    let half = leaf(Kind::Half).set_requires_grad(true);
    assert!(text(vec![parameter("w", half)]).contains("Half"));
    let fine = || parameter("w", leaf(Kind::Float).set_requires_grad(true));
    assert!(text(vec![fine(), fine()]).contains("`w` is used twice"));

    let arena = Arena::new(vec![fine()]).unwrap();
    assert!(matches!(arena.gradients(&leaf(Kind::Float)), Err(Error::Loss { .. })));
    let unreached = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true) * 2.0;
    let gradients = arena.gradients(&unreached).unwrap();
    assert_eq!(
        *gradients.get(Role::Head).unwrap(),
        leaf(Kind::Float),
        "what the loss does not reach has zero"
    );
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |config: AfloraConfig| Aflora::new(config).unwrap_err().to_string();
    let freeze = |freeze| refused(AfloraConfig { freeze, ..Default::default() });
    assert!(refused(AfloraConfig { rank: 0, ..Default::default() }).contains("`rank` is 0"));
    assert!(refused(AfloraConfig { dropout: 1.0, ..Default::default() }).contains("`dropout`"));
    assert!(freeze(FreezeConfig { beta1: 1.0, ..Default::default() }).contains("`freeze.beta1`"));
    assert!(freeze(FreezeConfig { interval: 0, ..Default::default() }).contains("interval"));
    assert!(TunerConfig { lr: f64::NAN, ..Default::default() }.validate().is_err());
    assert!(TunerConfig { max_grad_norm: Some(0.0), ..Default::default() }.validate().is_err());
}

#[test]
fn a_ratio_of_rates_is_refused_where_no_matrix_b_trains() {
    let method = aflora(FreezeConfig { mode: FreezeMode::Start, ..Default::default() });
    let toy = Toy::new(&method);
    let config = TunerConfig { lr_ratio: Some(16.0), ..Default::default() };
    let refused = Tuner::new(config, &method, toy.parameters(), 5, 40).unwrap_err().to_string();
    assert!(refused.contains("`lr_ratio` is 16") && refused.contains("no matrix B"), "{refused}");
}
