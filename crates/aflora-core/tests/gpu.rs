//! Adapted layers and recorded training on a GPU, held to libtorch's own operations. Without a GPU,
//! each test says on standard error that it was skipped.

mod checkpointed;
mod few_bits;
mod freezing;
mod pieces;
mod together;

use aflora_core::adapter::{
    normal, AdaLora, AdaLoraConfig, Aflora, AfloraConfig, AfloraRank, AfloraRankConfig, Lora,
    LoraConfig, PmTrainable, Role, Sora, SoraConfig,
};
use aflora_core::freeze::{FreezeConfig, FreezeMode, Rule};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::state::TunerState;
use aflora_core::{AdaptedLinear, Block, Loss, Method, Span, StepGraphs, Tuner, TunerConfig};
use aflora_cuda::ops;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use tch::{nn, nn::Module, Device, Kind, Reduction, Tensor};

const GPU: Device = Device::Cuda(0);

/// One test at a time: a capture would record, and libtorch's generator serve, another's work. Each draws
/// the same numbers, whichever ran before it.
fn gpu() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    match aflora_cuda::load().and_then(|()| aflora_cuda::available()) {
        Ok(()) => {
            tch::manual_seed(0);
            Some(turn)
        }
        Err(why) => {
            // Written past the test runner, which shows nothing of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped, it needs a GPU: {why}");
            None
        }
    }
}

/// Of the largest element.
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, kind: Kind) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let expected = expected.detach().to_kind(Kind::Double);
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let error =
        (found.detach().to_kind(Kind::Double) - expected).abs().max().double_value(&[]) / scale;
    let allowed = if kind == Kind::Float { 2e-5 } else { 3e-2 };
    assert!(error < allowed, "{what}: {error:e}");
}

fn gradients(y: &Tensor, toward: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    Tensor::run_backward(&[(y * toward).sum(Kind::Float)], leaves, false, false)
}

#[test]
fn paths_beside_frozen_weights_and_their_gradients() {
    let Some(_turn) = gpu() else { return };
    let aflora = |rank, mode| {
        let freeze = FreezeConfig { mode, ..Default::default() };
        let config =
            AfloraConfig { rank, freeze, pm_trainable: PmTrainable::All, ..Default::default() };
        Box::new(Aflora::new(config).unwrap()) as Box<dyn Method>
    };
    let lora = |rank| {
        Box::new(Lora::new(LoraConfig { rank, ..Default::default() }).unwrap()) as Box<dyn Method>
    };
    for (what, method) in [
        ("aflora 1", aflora(1, FreezeMode::Adaptive)),
        ("aflora 2, frozen", aflora(2, FreezeMode::Start)),
        ("aflora 4", aflora(4, FreezeMode::Adaptive)),
        ("aflora 7", aflora(7, FreezeMode::Adaptive)),
        ("aflora 4, frozen", aflora(4, FreezeMode::Start)),
        ("aflora 8", aflora(8, FreezeMode::Adaptive)),
        ("aflora 8, frozen", aflora(8, FreezeMode::Start)),
        ("aflora 16", aflora(16, FreezeMode::Adaptive)),
        ("lora 1", lora(1)),
        ("lora 3", lora(3)),
        ("lora 8", lora(8)),
        ("lora 32", lora(32)),
    ] {
        for (kind, rows, from, to) in [
            (Kind::Float, 37, 64, 96),
            (Kind::Float, 300, 768, 24),
            (Kind::BFloat16, 4096, 768, 768),
            (Kind::BFloat16, 2051, 256, 3072),
        ] {
            let what = format!("{what}, {kind:?} {rows} × {from} → {to}");
            let run = |device: Device, kind: Kind| {
                // Values of a name are the same wherever they lie.
                let fixed = |shape: &[i64], name: &str| {
                    normal(shape, 0.1, 1, name)
                        .to_device(device)
                        .to_kind(Kind::BFloat16)
                        .to_kind(kind)
                };
                let layer =
                    nn::Linear { ws: fixed(&[to, from], "w"), bs: Some(fixed(&[to], "bias")) };
                let layer =
                    AdaptedLinear::wrap("layer", layer, Block::Ffn, method.as_ref(), 5).unwrap();
                // As in training: end to end in one buffer, so that not all begin at 16 bytes.
                let arena = Arena::new(layer.adapter().parameters()).unwrap();
                let parameters = layer.adapter().parameters();
                for p in &parameters {
                    let values = normal(&p.leaf.size(), 0.3, 2, &p.name).to_device(device);
                    tch::no_grad(|| p.leaf.shallow_clone().copy_(&values));
                }
                let x = fixed(&[rows, from], "x").set_requires_grad(true);
                let y = layer.forward(&x);
                let toward = fixed(&[rows, to], "toward");
                let mut leaves = vec![&x];
                leaves.extend(parameters.iter().map(|p| &p.leaf));
                let mut made = vec![("output".to_string(), y.shallow_clone())];
                let names =
                    ["x".to_string()].into_iter().chain(parameters.iter().map(|p| p.name.clone()));
                made.extend(names.zip(gradients(&y, &toward, &leaves)));
                drop(arena);
                made
            };
            // In fp32 on the CPU: libtorch's operations on the same values.
            for ((name, found), (_, expected)) in
                run(GPU, kind).into_iter().zip(run(Device::Cpu, Kind::Float))
            {
                let what = format!("{what}: {name}");
                assert_close(&what, &found.to_device(Device::Cpu), &expected, kind);
            }
            assert!(ops::failure().is_none(), "{:?}", ops::failure());
        }
    }
}

/// Cross entropy of all rows that have a label.
fn summed(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)
}

/// Three adapted layers in training, with dropout between them.
struct Run {
    layers: [AdaptedLinear; 3],
    tuner: Tuner,
    graphs: StepGraphs,
}

impl Run {
    fn new(method: &dyn Method, graphs: StepGraphs) -> Self {
        let fixed = |shape: &[i64], name: &str| normal(shape, 0.3, 1, name).to_device(GPU);
        let wrap = |name: &str, from, to| {
            let bs = Some(fixed(&[to], &format!("{name}.bias")));
            let layer = nn::Linear { ws: fixed(&[to, from], name), bs };
            AdaptedLinear::wrap(name, layer, Block::Ffn, method, 5).unwrap()
        };
        let layers = [wrap("one", 24, 64), wrap("two", 64, 64), wrap("three", 64, 8)];
        let parameters = layers.iter().flat_map(|l| l.adapter().parameters()).collect();
        let config = TunerConfig { max_grad_norm: Some(1.0), ..Default::default() };
        let tuner = Tuner::new(config, method, parameters, 10, 100).unwrap();
        Run { layers, tuner, graphs }
    }

    /// The losses of these steps: on two shapes of batches, every third update in two pieces, with
    /// labels that are masked in other numbers at every step, while matrices freeze.
    fn train(&mut self, steps: std::ops::Range<usize>) -> Vec<f64> {
        let Run { layers, tuner, graphs } = self;
        let step = |step: usize| {
            tch::manual_seed(step as i64);
            let rows = [64, 128][step % 2];
            let pieces = if step.is_multiple_of(3) { 2 } else { 1 };
            let masked = |piece: i64| (5 * step as i64 + 11 * piece) % 23;
            let labelled: i64 = (0..pieces).map(|piece| rows - masked(piece)).sum();
            let batches = (0..pieces).map(|piece| {
                // On the host, as a data loader gives them.
                let x = normal(&[rows, 24], 0.3, 1, &format!("x {step} {piece}"));
                let labels = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(3);
                let _ = labels.narrow(0, 0, masked(piece)).fill_(-100);
                [x, labels]
            });
            let forward = |[x, labels]: &[Tensor; 2]| -> aflora_core::Result<Loss> {
                let [one, two, three] = &*layers;
                let h = one.forward(x).relu().dropout(0.1, true);
                Ok(summed(&three.forward(&two.forward(&h).relu()), labels).into())
            };
            tuner.forward_backward(batches, labelled as f64, graphs, forward).unwrap();
            let loss = tuner.loss().unwrap().double_value(&[]);
            tuner.update().unwrap();
            loss
        };
        let losses = steps.map(step).collect();
        assert_eq!(graphs.remark(), None);
        losses
    }

    fn values(&self) -> Vec<Tensor> {
        let values = self.layers.iter().flat_map(|l| l.adapter().tensors());
        values.map(|t| t.tensor.detach().copy()).collect()
    }
}

/// What went other ways comes to the same but for rounding.
fn assert_same_run(name: &str, found: (&[f64], &Run), expected: (&[f64], &Run)) {
    let ((losses, run), (expected_losses, expected)) = (found, expected);
    let frozen_at = |run: &Run| run.tuner.accounting().frozen_at.clone();
    assert_eq!(frozen_at(run), frozen_at(expected), "{name}");
    for (step, (a, b)) in losses.iter().zip(expected_losses).enumerate() {
        assert!((a - b).abs() < 1e-3 * b.abs(), "{name}, step {step}: {a}, and not {b}");
    }
    for (a, b) in run.values().iter().zip(expected.values()) {
        // What left with its component is 0 in both.
        let most = b.abs().max().double_value(&[]).max(1e-9);
        let error = (a - &b).abs().max().double_value(&[]) / most;
        assert!(error < 1e-2, "{name}: {error:e}");
    }
    assert!(ops::failure().is_none(), "{name}: {:?}", ops::failure());
}

#[test]
fn recorded_training_is_eager_training() {
    let Some(_turn) = gpu() else { return };
    let aflora = AfloraConfig { pm_trainable: PmTrainable::All, ..Default::default() };
    recorded_is_eager(&Aflora::new(aflora).unwrap());
    let lora = LoraConfig { rank: 4, freeze: FreezeConfig::default(), ..Default::default() };
    recorded_is_eager(&Lora::new(lora).unwrap());
}

/// What thaws has no gradient in a recording of before.
#[test]
fn recorded_training_that_thaws_is_eager_training() {
    let Some(_turn) = gpu() else { return };
    for rule in [Rule::MatrixRank, Rule::OwnPeak] {
        let t_f = Span::Share(0.2);
        let freeze = FreezeConfig { rule, thaw: true, t_f, interval: 5, ..Default::default() };
        let config = AfloraConfig { pm_trainable: PmTrainable::All, freeze, ..Default::default() };
        let method = Aflora::new(config).unwrap();
        let (mut eager, mut recorded) =
            (Run::new(&method, StepGraphs::off(GPU)), Run::new(&method, StepGraphs::new(GPU)));
        let (expected, found) = (eager.train(0..100), recorded.train(0..100));
        assert!(recorded.graphs.len() > 4, "steps that look at what rests have their own");
        assert_same_run(rule.name(), (&found, &recorded), (&expected, &eager));
    }
}

fn recorded_is_eager(method: &dyn Method) {
    let (mut eager, mut recorded) =
        (Run::new(method, StepGraphs::off(GPU)), Run::new(method, StepGraphs::new(GPU)));
    let (expected, found) = (eager.train(0..100), recorded.train(0..100));
    // Two shapes, each as the first piece of an update and as a later one.
    assert_eq!((eager.graphs.len(), recorded.graphs.len()), (0, 4));
    let frozen = &eager.tuner.accounting().frozen_at;
    assert_eq!(frozen.len(), 6, "all matrices freeze: {frozen:?}");
    // Dropout draws the same numbers: what differs is rounding, in another order of sums.
    assert_same_run("recorded", (&found, &recorded), (&expected, &eager));
}

/// What a checkpoint holds lies on the host until it is taken up.
#[test]
fn a_run_goes_on_on_a_gpu_from_a_state_on_the_host() {
    let Some(_turn) = gpu() else { return };
    let methods: [Box<dyn Method>; 4] = [
        Box::new(Aflora::new(AfloraConfig::default()).unwrap()),
        Box::new(AfloraRank::new(AfloraRankConfig::default()).unwrap()),
        Box::new(AdaLora::new(AdaLoraConfig::default()).unwrap()),
        Box::new(Sora::new(SoraConfig::default()).unwrap()),
    ];
    for method in methods {
        let name = method.name();
        let mut whole = Run::new(method.as_ref(), StepGraphs::new(GPU));
        let mut losses = whole.train(0..60);
        let state = whole.tuner.state().unwrap();
        let host = |(name, t): (&String, &Tensor)| (name.clone(), t.to_device(Device::Cpu).copy());
        let tensors = state.tensors.iter().map(host).collect();
        let state = TunerState { position: state.position, tensors };
        let mut other = Run::new(method.as_ref(), StepGraphs::new(GPU));
        other.tuner.restore(&state).unwrap();
        let mut found = losses.clone();
        found.extend(other.train(60..99));
        losses.extend(whole.train(60..99));
        assert_same_run(name, (&found, &other), (&losses, &whole));

        // AdaLoRA holds its mask from its last allocation on: a state from behind it.
        let late = whole.tuner.state().unwrap();
        let tensors = late.tensors.iter().map(host).collect();
        let late = TunerState { position: late.position, tensors };
        let mut other = Run::new(method.as_ref(), StepGraphs::new(GPU));
        other.tuner.restore(&late).unwrap();
        let (a, b) = (other.train(99..100), whole.train(99..100));
        assert_same_run(name, (&a, &other), (&b, &whole));
    }
}

/// A replay that divided by what stood there when it was recorded would give another loss.
#[test]
fn every_cut_of_an_update_has_its_loss_and_its_gradient_in_replays_too() {
    let Some(_turn) = gpu() else { return };
    let method = Aflora::new(AfloraConfig::default()).unwrap();
    let w = normal(&[24, 5], 0.3, 1, "w").to_device(GPU).set_requires_grad(true);
    let parameter = Parameter::of_model("w", Role::Head, w.shallow_clone());
    // Nothing moves: what differs between updates is how they are cut, and their labels.
    let config = TunerConfig { lr: 0.0, head_lr: 0.0, ..Default::default() };
    let mut tuner = Tuner::new(config, &method, vec![parameter], 64, 64).unwrap();
    let mut graphs = StepGraphs::new(GPU);
    for update in 0..6 {
        let x = normal(&[8, 24], 1.0, 1, &format!("x {update}"));
        let labels = Tensor::arange(8, (Kind::Int64, Device::Cpu)).remainder(5);
        let _ = labels.narrow(0, 0, update).fill_(-100);
        // Its graph is gone before anything is recorded: one that holds on to the parameter would
        // keep the recording's gradient on a stream of its own.
        let (mean, expected) = {
            let logits = x.to_device(GPU).matmul(&w);
            let (labels, none) = (labels.to_device(GPU), None::<&Tensor>);
            let mean = logits.cross_entropy_loss(&labels, none, Reduction::Mean, -100, 0.0);
            let gradients = tuner.arena().gradients(&mean).unwrap();
            (mean.double_value(&[]), gradients)
        };
        for pieces in [8, 4, 2, 1] {
            let rows = 8 / pieces;
            let batches =
                (0..pieces).map(|piece| [&x, &labels].map(|t| t.narrow(0, piece * rows, rows)));
            let forward = |[x, labels]: &[Tensor; 2]| -> aflora_core::Result<Loss> {
                Ok(summed(&x.matmul(&w), labels).into())
            };
            let labelled = (8 - update) as f64;
            tuner.forward_backward(batches, labelled, &mut graphs, forward).unwrap();
            let loss = tuner.loss().unwrap().double_value(&[]);
            let what = format!("update {update} in {pieces} pieces");
            assert!((loss - mean).abs() < 1e-5 * mean, "{what}: {loss}, and whole {mean}");
            assert_close(&what, tuner.gradients().flat(), expected.flat(), Kind::Float);
            tuner.update().unwrap();
        }
    }
    assert_eq!(graphs.remark(), None);
    // Of each size the first and the later pieces, but of the whole.
    assert_eq!(graphs.len(), 7);
}

#[test]
fn a_loss_that_reads_from_the_device_trains_operation_by_operation() {
    let Some(_turn) = gpu() else { return };
    let w = Tensor::ones([4], (Kind::Float, GPU)).set_requires_grad(true);
    let parameter = Parameter::of_model("w", Role::Head, w.shallow_clone());
    let method = Aflora::new(AfloraConfig::default()).unwrap();
    let config = TunerConfig { warmup: Span::Steps(0), ..Default::default() };
    let mut tuner = Tuner::new(config, &method, vec![parameter], 4, 4).unwrap();
    let mut graphs = StepGraphs::new(GPU);
    let mut reasons = Vec::new();
    for _ in 0..4 {
        let batch = [Tensor::ones([4], (Kind::Float, Device::Cpu))];
        let forward = |[x]: &[Tensor; 1]| -> aflora_core::Result<Loss> {
            let loss = (&w * x).square().sum(Kind::Float);
            let _ = loss.double_value(&[]);
            Ok(loss.into())
        };
        tuner.forward_backward([batch], 1.0, &mut graphs, forward).unwrap();
        assert!(tuner.loss().unwrap().double_value(&[]) > 0.0);
        tuner.update().unwrap();
        reasons.extend(graphs.remark());
    }
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(w.lt(1.0).all().int64_value(&[]) == 1, "it trained");
}

#[test]
fn a_step_that_is_not_finite_leaves_nothing_behind_and_is_counted() {
    let Some(_turn) = gpu() else { return };
    let w = Tensor::ones([4], (Kind::Float, GPU)).set_requires_grad(true);
    let parameter = Parameter::of_model("w", Role::Head, w.shallow_clone());
    let method = Aflora::new(AfloraConfig::default()).unwrap();
    let config = TunerConfig { warmup: Span::Steps(0), ..Default::default() };
    let mut tuner = Tuner::new(config, &method, vec![parameter], 8, 8).unwrap();
    let mut graphs = StepGraphs::new(GPU);
    // Recorded at the second step, replayed with what is not finite at the fifth and sixth.
    for (step, value) in [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::INFINITY, 1.0].into_iter().enumerate()
    {
        let batch = [Tensor::from_slice(&[value, 1.0, 1.0, 1.0])];
        let forward = |[x]: &[Tensor; 1]| -> aflora_core::Result<Loss> {
            Ok((&w * x).square().sum(Kind::Float).into())
        };
        tuner.forward_backward([batch], 1.0, &mut graphs, forward).unwrap();
        tuner.update().unwrap();
        let in_a_row = [0, 0, 0, 0, 1, 2, 0][step];
        assert_eq!(tuner.skipped().unwrap().1, in_a_row, "step {step}");
        assert!(w.isfinite().all().int64_value(&[]) == 1, "step {step}");
    }
    assert_eq!(tuner.skipped().unwrap().0, 2);
    assert_eq!(graphs.len(), 1);
}
