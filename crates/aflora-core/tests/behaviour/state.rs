//! A run that stops and goes on is the run that never stopped, for every method, bit for bit;
//! and a step that is not finite moves nothing.

use aflora_core::adapter::{
    normal, AdaLoraConfig, AfloraConfig, AfloraRankConfig, DoraConfig, EloraConfig, Init,
    LoraConfig, MethodConfig, PmTrainable, Role, SoraConfig,
};
use aflora_core::freeze::{FreezeConfig, Rule};
use aflora_core::optim::Parameter;
use aflora_core::state::{Position, TunerState};
use aflora_core::{AdaptedLinear, Block, Error, Method, Span, Tuner, TunerConfig};
use std::collections::BTreeMap;
use tch::{nn, nn::Module, Device, Kind, Tensor};

const STEPS: u64 = 48;

fn configs() -> Vec<(&'static str, MethodConfig)> {
    let freeze = FreezeConfig {
        t_i: Span::Steps(8),
        t_f: Span::Steps(14),
        interval: 3,
        ..Default::default()
    };
    let aflora = |rule| {
        let freeze = FreezeConfig { rule, ..freeze.clone() };
        let config =
            AfloraConfig { rank: 3, pm_trainable: PmTrainable::All, freeze, ..Default::default() };
        MethodConfig::Aflora(config)
    };
    let thawing = |rule| {
        let freeze = FreezeConfig { rule, thaw: true, final_share: 0.8, ..freeze.clone() };
        let config =
            AfloraConfig { rank: 3, pm_trainable: PmTrainable::All, freeze, ..Default::default() };
        MethodConfig::Aflora(config)
    };
    let (t_i, t_f) = (Span::Steps(8), Span::Steps(14));
    let adalora = AdaLoraConfig {
        rank: 4,
        target_rank: 2,
        alpha: 8.0,
        t_i,
        t_f,
        interval: 3,
        ..Default::default()
    };
    let lora = LoraConfig { rank: 3, freeze: freeze.clone(), ..Default::default() };
    let within = LoraConfig { rank: 3, ..Default::default() };
    let ranks =
        AfloraRankConfig { rank: 4, target_rank: 2, freeze: freeze.clone(), ..Default::default() };
    vec![
        ("aflora", aflora(Rule::ElementQuantile)),
        ("aflora by the text", aflora(Rule::MatrixRank)),
        ("lora", MethodConfig::Lora(LoraConfig { rank: 3, ..Default::default() })),
        ("dora", MethodConfig::Dora(DoraConfig(LoraConfig { rank: 3, ..Default::default() }))),
        ("lora that freezes", MethodConfig::Lora(lora.clone())),
        ("dora that freezes", MethodConfig::Dora(DoraConfig(lora))),
        ("pissa", MethodConfig::Lora(LoraConfig { init: Init::Pissa, ..within.clone() })),
        ("olora", MethodConfig::Lora(LoraConfig { init: Init::Olora, train_a: false, ..within })),
        ("elora", MethodConfig::Elora(EloraConfig { rank: 6, ..Default::default() })),
        ("adalora", MethodConfig::AdaLora(adalora)),
        ("sora", MethodConfig::Sora(SoraConfig { rank: 4, threshold: 1e-2, ..Default::default() })),
        ("aflora_rank", MethodConfig::AfloraRank(ranks)),
        ("net motion", aflora(Rule::NetMotion)),
        ("expected gain", aflora(Rule::ExpectedGain)),
        ("own peak", aflora(Rule::OwnPeak)),
        ("at random", aflora(Rule::Random)),
        ("the text, thawing", thawing(Rule::MatrixRank)),
        ("own peak, thawing", thawing(Rule::OwnPeak)),
    ]
}

fn fixed(shape: &[i64], name: &str) -> Tensor {
    normal(shape, 0.5, 9, name)
}

/// A small network of adapted layers, a head, and what trains them.
struct Run {
    layers: Vec<AdaptedLinear>,
    head: Tensor,
    tuner: Tuner,
}

impl Run {
    fn new(method: &dyn Method) -> Self {
        Self::with(method, None)
    }

    fn with(method: &dyn Method, lr_ratio: Option<f64>) -> Self {
        let shapes = [(6, 10), (10, 10), (10, 4)];
        let names = ["one", "two", "three"];
        let plain = names.iter().zip(shapes).map(|(name, (from, to))| {
            let layer = nn::Linear { ws: fixed(&[to, from], name), bs: Some(fixed(&[to], name)) };
            (*name, layer, Block::Ffn)
        });
        let layers = AdaptedLinear::wrap_all(plain.collect(), method, 5).unwrap();
        let head = fixed(&[3, 4], "head").set_requires_grad(true);
        let mut parameters: Vec<Parameter> =
            layers.iter().flat_map(|layer| layer.adapter().parameters()).collect();
        let leaf = head.shallow_clone();
        parameters.push(Parameter::of_model("head.weight", Role::Head, leaf));
        let (lr, max_grad_norm) = (5e-2, Some(1.0));
        let config = TunerConfig { lr, lr_ratio, max_grad_norm, ..Default::default() };
        let tuner = Tuner::new(config, method, parameters, 6, STEPS).unwrap();
        Run { layers, head, tuner }
    }

    /// Of the data of step `t`, so that no two gradients are alike.
    fn loss(&self, t: u64) -> Tensor {
        let x = fixed(&[16, 6], &format!("step {t}"));
        let y = Tensor::arange(16, (Kind::Int64, Device::Cpu)).remainder(3);
        let hidden = self.layers.iter().fold(x, |x, layer| layer.forward(&x).tanh());
        hidden.matmul(&self.head.tr()).cross_entropy_for_logits(&y)
    }

    fn train(&mut self, to: u64) {
        while self.tuner.completed() < to {
            let loss = self.loss(self.tuner.completed());
            self.tuner.step(&loss).unwrap();
        }
    }

    fn values(&self) -> Vec<Tensor> {
        let adapters = self.layers.iter().flat_map(|layer| layer.adapter().tensors());
        adapters.map(|t| t.tensor).chain([self.head.shallow_clone()]).collect()
    }
}

/// A state as a file would give it back.
fn through_bytes(state: &TunerState) -> TunerState {
    let text = serde_json::to_vec(&state.position).unwrap();
    let position: Position = serde_json::from_slice(&text).unwrap();
    assert_eq!(position, state.position);
    let tensors: BTreeMap<String, Tensor> = state
        .tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.to_kind(Kind::Float).copy()))
        .collect();
    TunerState { position, tensors }
}

#[test]
fn a_run_that_goes_on_is_the_run_that_never_stopped() {
    for (name, config) in configs() {
        let method = config.build().unwrap();
        let mut whole = Run::new(method.as_ref());
        // Before the first step, in the warm-up, while things freeze, when all is frozen.
        let mut states = Vec::new();
        for at in [0, 1, 5, 13, 14, 15, 21, 22, 29, 30, 33, 34, 35, 47] {
            whole.train(at);
            states.push(through_bytes(&whole.tuner.state().unwrap()));
        }
        whole.train(STEPS);
        for state in states {
            let at = state.position.step;
            let mut other = Run::new(method.as_ref());
            other.tuner.restore(&state).unwrap();
            assert_eq!(other.tuner.completed(), at);
            other.train(STEPS);
            assert_eq!(whole.values(), other.values(), "{name}, from step {at}");
            let [a, b] = [&whole, &other].map(|run| run.tuner.state().unwrap());
            assert_eq!(a.position, b.position, "{name}, from step {at}");
            assert_eq!(a.tensors, b.tensors, "{name}, from step {at}");
            assert_eq!(whole.tuner.trainable(), other.tuner.trainable(), "{name}");
        }
    }
}

#[test]
fn what_was_frozen_is_frozen_again_and_has_no_gradient() {
    let method = configs()[0].1.build().unwrap();
    let mut run = Run::new(method.as_ref());
    run.train(40);
    assert_eq!(run.tuner.arena().frozen(), 6);
    let mut other = Run::new(method.as_ref());
    other.tuner.restore(&run.tuner.state().unwrap()).unwrap();
    assert_eq!(other.tuner.arena().frozen(), 6);
    let trains = |run: &Run| run.values().iter().map(Tensor::requires_grad).collect::<Vec<_>>();
    assert_eq!(trains(&run), trains(&other));
    assert_eq!(run.tuner.accounting(), other.tuner.accounting());
}

/// A state of before matrices could rest has no word of it.
#[test]
fn a_state_without_a_word_of_rest_is_one_in_which_nothing_rests() {
    let method = configs()[0].1.build().unwrap();
    let mut run = Run::new(method.as_ref());
    run.train(20);
    let text = serde_json::to_string(&run.tuner.state().unwrap().position).unwrap();
    assert!(!text.contains("rests") && !text.contains("probing"), "{text}");
}

#[test]
fn a_state_of_something_else_is_refused_and_changes_nothing() {
    let build = |i: usize| configs()[i].1.build().unwrap();
    let (aflora, lora, adalora) = (build(0), build(2), build(5));
    let mut run = Run::new(aflora.as_ref());
    run.train(3);
    let good = run.tuner.state().unwrap();
    let refused = |change: &dyn Fn(&mut TunerState), words: &str| {
        let mut state = through_bytes(&good);
        change(&mut state);
        let mut other = Run::new(aflora.as_ref());
        let before: Vec<Tensor> = other.values().iter().map(Tensor::copy).collect();
        let error = other.tuner.restore(&state).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(before, other.values());
    };
    refused(&|s| s.position.groups[0].members[0].name = "zero.lora_A".into(), "zero.lora_A");
    refused(&|s| s.position.groups[0].members[0].shape = vec![1, 2], "[1, 2]");
    refused(&|s| drop(s.position.groups[0].members.pop()), "missing");
    refused(&|s| drop(s.position.groups.pop()), "number of groups");
    refused(&|s| drop(s.tensors.pop_last()), "missing");
    refused(&|s| drop(s.tensors.insert("projection.values".into(), fixed(&[3], "x"))), "[3]");
    // Numbers that no run of this length has.
    refused(&|s| s.position.step = STEPS + 1, "step");
    refused(&|s| s.position.step = 2, "accounting.steps");
    refused(&|s| s.position.skipped = 4, "skipped");
    refused(&|s| s.position.skipped_in_a_row = 1, "skipped_in_a_row");
    refused(&|s| s.position.accounting.at_end = -1, "at_end");
    refused(&|s| s.position.accounting.frozen_at.push(("one.lora_A".into(), 9)), "frozen at 9");
    refused(&|s| s.position.groups[0].members[0].rests = true, "at rest");
    for other in [lora, adalora] {
        let error = Run::new(other.as_ref()).tuner.restore(&good).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
    }
}

#[test]
fn a_count_that_no_run_of_the_method_has_is_refused() {
    for (name, config) in configs() {
        let method = config.build().unwrap();
        let mut run = Run::new(method.as_ref());
        run.train(20);
        let good = run.tuner.state().unwrap();
        for count in good.position.counts.keys() {
            for wrong in [-1, i64::MIN, i64::MAX] {
                let mut state = through_bytes(&good);
                state.position.counts.insert(count.clone(), wrong);
                let error = Run::new(method.as_ref()).tuner.restore(&state).unwrap_err();
                assert!(error.to_string().contains(count), "{name}: {error}");
            }
        }
        for rests in good.tensors.keys().filter(|key| key.contains("frozen")) {
            let mut state = through_bytes(&good);
            state.tensors.insert(rests.clone(), fixed(&[1], "x"));
            let error = Run::new(method.as_ref()).tuner.restore(&state).unwrap_err();
            assert!(error.to_string().contains("of rank 1"), "{name}: {error}");
        }
    }
}

#[test]
fn a_step_that_is_not_finite_moves_nothing_and_counts() {
    for (name, config) in configs() {
        let method = config.build().unwrap();
        let mut run = Run::new(method.as_ref());
        // Into the freezing, so that a test falls into the bad steps.
        run.train(16);
        let before: Vec<Tensor> = run.values().iter().map(Tensor::copy).collect();
        let buffers = |run: &Run| -> BTreeMap<String, Tensor> {
            let state = run.tuner.state().unwrap();
            state.tensors.into_iter().map(|(name, t)| (name, t.copy())).collect()
        };
        let kept = buffers(&run);
        for factor in [f64::NAN, f64::INFINITY] {
            let loss = run.loss(16) * factor;
            let report = run.tuner.step(&loss).unwrap();
            assert_eq!(report.skipped.int64_value(&[]), 1, "{name}");
            assert!(report.check.is_none(), "{name}");
        }
        // A loss that is infinite with a gradient that is not.
        let loss = run.loss(16) + f64::INFINITY;
        run.tuner.step(&loss).unwrap();
        assert_eq!(run.tuner.skipped().unwrap(), (3, 3), "{name}");
        assert_eq!(run.tuner.completed(), 19, "the schedule goes on");
        assert_eq!(before, run.values(), "{name}");
        assert_eq!(kept, buffers(&run), "{name}");
        run.train(STEPS);
        assert_eq!(run.tuner.skipped().unwrap(), (3, 0), "{name}");
        let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
        assert!(run.values().iter().all(finite), "{name}");
    }
}

/// LoRA+ puts matrices B behind all A: no method goes by the order, and a stopped run keeps it.
#[test]
fn a_ratio_of_rates_is_kept_and_changes_nothing_but_rates() {
    for (name, config) in configs().into_iter().filter(|(name, _)| *name != "elora") {
        let method = config.build().unwrap();
        let trained = |ratio| {
            let mut run = Run::with(method.as_ref(), ratio);
            run.train(STEPS);
            run
        };
        let (plain, one, four) = (trained(None), trained(Some(1.0)), trained(Some(4.0)));
        let far = |a: &Run, b: &Run| -> f64 {
            let pairs = a.values().into_iter().zip(b.values());
            pairs.map(|(a, b)| (a - b).abs().max().double_value(&[])).fold(0.0, f64::max)
        };
        assert!(far(&plain, &one) < 1e-3, "{name}: {}", far(&plain, &one));
        assert!(far(&plain, &four) > 1e-2, "{name}: {}", far(&plain, &four));

        let mut first = Run::with(method.as_ref(), Some(4.0));
        first.train(23);
        let state = through_bytes(&first.tuner.state().unwrap());
        let mut other = Run::with(method.as_ref(), Some(4.0));
        other.tuner.restore(&state).unwrap();
        other.train(STEPS);
        assert_eq!(four.values(), other.values(), "{name}");
    }
}
