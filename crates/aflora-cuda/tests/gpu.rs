//! Kernels and graphs on a GPU, held to libtorch's own operations in double precision. Without a
//! GPU, each test says on standard error that it was skipped.

use aflora_core::adapter::{normal, Aflora, AfloraConfig, Lora, LoraConfig, PmTrainable, Role};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::{AdaptedLinear, Block, Checkpoints, Method, Span, Tuner, TunerConfig};
use aflora_cuda::{ops, Graph, Pool, StepGraphs};
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use tch::{nn, nn::Module, Device, Kind, Reduction, Tensor};

const GPU: Device = Device::Cuda(0);

/// One test at a time: a capture would record, and libtorch's generator serve, another's work.
fn gpu() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    match aflora_cuda::load().and_then(|()| aflora_cuda::available()) {
        Ok(()) => Some(turn),
        Err(why) => {
            // Written past the test runner, which shows nothing of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped, it needs a GPU: {why}");
            None
        }
    }
}

fn random(shape: &[i64], kind: Kind) -> Tensor {
    (Tensor::randn(shape, (Kind::Float, GPU)) * 0.5).to_kind(kind)
}

fn leaf(t: &Tensor) -> Tensor {
    t.detach().copy().set_requires_grad(true)
}

fn double(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Double).set_requires_grad(true)
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
fn layer_norm_of_a_sum_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    for (kind, rows, hidden) in [
        (Kind::Float, 5, 768),
        (Kind::BFloat16, 67, 768),
        (Kind::BFloat16, 33, 1024),
        (Kind::Float, 3, 24),
    ] {
        let what = format!("{kind:?} {rows} × {hidden}");
        let [x, residual] = [0, 1].map(|_| random(&[rows, hidden], kind));
        let [gamma, beta] = [0, 1].map(|_| random(&[hidden], kind) + 1.0);
        let toward = random(&[rows, hidden], kind);
        let (a, b) = (leaf(&x), leaf(&residual));
        let y = ops::add_layer_norm(&a, &b, Some(&gamma), Some(&beta), 1e-6, 0.0).expect("taken");
        let found = gradients(&y, &toward, &[&a, &b]);
        let (c, d) = (double(&x), double(&residual));
        let (gamma, beta) = (gamma.to_kind(Kind::Double), beta.to_kind(Kind::Double));
        let z = (&c + &d).layer_norm([hidden], Some(&gamma), Some(&beta), 1e-6, false);
        let expected = gradients(&z, &toward.to_kind(Kind::Double), &[&c, &d]);
        assert_close(&what, &y, &z, kind);
        for (f, e) in found.iter().zip(&expected) {
            assert_close(&format!("{what}, gradient"), f, e, kind);
        }
    }
}

#[test]
fn dropout_leaves_its_share_and_the_gradient_knows_what_it_left() {
    let Some(_turn) = gpu() else { return };
    let x = leaf(&Tensor::ones([512, 768], (Kind::Float, GPU)));
    let zero = Tensor::zeros([512, 768], (Kind::Float, GPU));
    let (gamma, beta) =
        (Tensor::ones([768], (Kind::Float, GPU)), Tensor::zeros([768], (Kind::Float, GPU)));
    let run = || ops::add_layer_norm(&x, &zero, Some(&gamma), Some(&beta), 1e-6, 0.25).unwrap();
    let (first, second) = (run(), run());
    let kept = |y: &Tensor| y.gt(0.0);
    let share = kept(&first).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((share - 0.75).abs() < 0.005, "{share}");
    let agree = kept(&first).eq_tensor(&kept(&second)).to_kind(Kind::Double).mean(Kind::Double);
    let agree = agree.double_value(&[]);
    assert!((agree - (0.75 * 0.75 + 0.25 * 0.25)).abs() < 0.005, "not independent: {agree}");
    let gradient = &gradients(&first, &random(&[512, 768], Kind::Float), &[&x])[0];
    assert_eq!(gradient.ne(0.0), kept(&first), "the gradient is of another draw");
}

/// Scores as the paper writes them, one gather each; positions `[2 length - 1, hidden]`, row t
/// for the distance i - j = length - 1 - t.
fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    positions: (Option<&Tensor>, Option<&Tensor>),
    mask: &Tensor,
    heads: i64,
    scale: f64,
) -> Tensor {
    let (batch, length) = (mask.size()[0], mask.size()[1]);
    let by_head = |t: &Tensor| t.view([batch, length, heads, -1]).transpose(1, 2);
    let of_positions = |t: &Tensor| t.view([-1, heads, t.size()[1] / heads]).permute([1, 2, 0]);
    let at = Tensor::arange(length, (Kind::Int64, GPU));
    let row = (length - 1) - (at.unsqueeze(1) - at.unsqueeze(0));
    let index = |row: &Tensor| row.expand([batch, heads, length, length], false);
    let mut scores = by_head(q).matmul(&by_head(k).transpose(2, 3));
    if let Some(p) = positions.0 {
        scores += by_head(q).matmul(&of_positions(p)).gather(3, &index(&row), false);
    }
    if let Some(p) = positions.1 {
        // The same distance, seen from the key.
        let seen = by_head(k).matmul(&of_positions(p));
        scores += seen.gather(3, &index(&row.transpose(0, 1)), false).transpose(2, 3);
    }
    let scores = scores * scale + mask.view([batch, 1, 1, length]);
    scores
        .softmax(-1, Kind::Double)
        .matmul(&by_head(v))
        .transpose(1, 2)
        .reshape([batch, length, -1])
}

#[test]
fn disentangled_attention_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    let (heads, hidden) = (3, 96);
    for (kind, batch, length, c2p, p2c, joined) in [
        (Kind::Float, 2, 8, true, true, true),
        (Kind::Float, 2, 40, true, true, false),
        (Kind::Float, 1, 136, true, false, true),
        (Kind::Float, 3, 72, false, true, true),
        (Kind::Float, 2, 32, false, false, false),
        (Kind::Float, 1, 600, true, true, true),
        (Kind::Float, 2, 33, true, true, true),
        (Kind::BFloat16, 3, 50, true, true, true),
        (Kind::BFloat16, 4, 128, true, true, true),
        (Kind::BFloat16, 2, 256, true, true, false),
    ] {
        let what = format!("{kind:?} {batch} × {length}, c2p {c2p}, p2c {p2c}, joined {joined}");
        let tokens = batch * length;
        let [q, k, v] = [0, 1, 2].map(|_| random(&[tokens, hidden], kind));
        let [pk, pq] = [0, 1].map(|_| random(&[2 * length - 1, hidden], kind));
        let mask = Tensor::zeros([batch, length], (kind, GPU));
        let _ = mask.get(0).narrow(0, length / 2, length / 4).fill_(-1e30);
        let toward = random(&[batch, length, hidden], kind);
        let [q1, k1, v1, pk1, pq1] = [&q, &k, &v, &pk, &pq].map(leaf);
        let join = |t: &Tensor, p: &Tensor, wanted: bool| match wanted && joined {
            true => Tensor::cat(&[t, p], 0),
            false => t.shallow_clone(),
        };
        let y = ops::disentangled(&ops::Disentangled {
            query: &join(&q1, &pq1, p2c),
            key: &join(&k1, &pk1, c2p),
            value: &v1,
            pos_key: (c2p && !joined).then_some(&pk1),
            pos_query: (p2c && !joined).then_some(&pq1),
            mask: &mask,
            heads,
            scale: 0.2,
            dropout: 0.0,
        })
        .unwrap_or_else(|| panic!("{what}: {:?}", ops::failure()));
        let [q2, k2, v2, pk2, pq2] = [&q, &k, &v, &pk, &pq].map(double);
        let positions = (c2p.then_some(&pk2), p2c.then_some(&pq2));
        let mask = mask.to_kind(Kind::Double);
        let z = attention(&q2, &k2, &v2, positions, &mask, heads, 0.2);
        assert_close(&what, &y, &z, kind);
        let mut fast = vec![&q1, &k1, &v1];
        let mut slow = vec![&q2, &k2, &v2];
        for (wanted, a, b) in [(c2p, &pk1, &pk2), (p2c, &pq1, &pq2)] {
            if wanted {
                fast.push(a);
                slow.push(b);
            }
        }
        let found = gradients(&y, &toward, &fast);
        let expected = gradients(&z, &toward.to_kind(Kind::Double), &slow);
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what}, gradient {i}"), f, e, kind);
        }
    }
}

#[test]
fn attention_drops_weights_and_its_gradient_knows_which() {
    let Some(_turn) = gpu() else { return };
    // One token's value is 1, all others' 0: the output is that token's weight, dropped or not.
    let (batch, length, heads, hidden) = (4, 64, 2, 16);
    let zeros = Tensor::zeros([batch * length, hidden], (Kind::Float, GPU));
    let value = leaf(&zeros);
    let run = |value: &Tensor| {
        ops::disentangled(&ops::Disentangled {
            query: &zeros,
            key: &zeros,
            value,
            pos_key: None,
            pos_query: None,
            mask: &Tensor::zeros([batch, length], (Kind::Float, GPU)),
            heads,
            scale: 1.0,
            dropout: 0.5,
        })
        .unwrap()
    };
    let y = run(&(&value + 1.0));
    // A row keeps about half of its weights, each doubled.
    let kept = y.mean(Kind::Double).double_value(&[]);
    assert!((kept - 1.0).abs() < 0.02, "{kept}");
    // The gradient of the sum is how often each token was read: linear in the same draw.
    let gradient = &gradients(&y, &y.ones_like(), &[&value])[0];
    let read = gradient.sum(Kind::Double).double_value(&[]);
    assert!((read - y.sum(Kind::Double).double_value(&[])).abs() < 1e-2, "{read}");
}

#[test]
fn a_replay_computes_with_new_values_and_draws_new_numbers() {
    let Some(_turn) = gpu() else { return };
    let mut x = random(&[64, 256], Kind::Float);
    let weight = random(&[256, 256], Kind::Float);
    let work = || (x.matmul(&weight).tanh().sum(Kind::Float), x.ones_like().dropout(0.5, true));
    let _ = work();
    let (graph, (sum, drawn)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    let mut draws = Vec::new();
    for _ in 0..3 {
        x.copy_(&random(&[64, 256], Kind::Float));
        graph.replay().unwrap();
        assert_close("sum", &sum, &x.matmul(&weight).tanh().sum(Kind::Float), Kind::Float);
        draws.push(drawn.copy());
    }
    assert_ne!(draws[0], draws[1]);
    assert_ne!(draws[1], draws[2]);
}

#[test]
fn a_seed_set_before_a_replay_decides_what_it_draws() {
    let Some(_turn) = gpu() else { return };
    let x = Tensor::ones([64, 768], (Kind::Float, GPU));
    let (zero, one) = (x.zeros_like(), Tensor::ones([768], (Kind::Float, GPU)));
    let work = || {
        let ours = ops::add_layer_norm(&x, &zero, Some(&one), Some(&one), 1e-6, 0.25).unwrap();
        (x.dropout(0.5, true), ours)
    };
    let _ = work();
    let (graph, (theirs, ours)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    let draw = |seed| {
        tch::manual_seed(seed);
        graph.replay().unwrap();
        (theirs.copy(), ours.copy())
    };
    let (first, other, again) = (draw(7), draw(8), draw(7));
    assert_eq!(first.0, again.0);
    assert_eq!(first.1, again.1);
    assert_ne!(first.0, other.0);
    assert_ne!(first.1, other.1);
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_work_goes_on() {
    let Some(_turn) = gpu() else { return };
    let x = random(&[8], Kind::Float);
    let failed = Graph::capture(&Pool::new().unwrap(), || x.sum(Kind::Float).double_value(&[]));
    assert!(failed.is_err());
    let dropped = Tensor::ones([1000], (Kind::Float, GPU)).dropout(0.5, true);
    assert!(dropped.eq(0.0).any().int64_value(&[]) == 1);
    let (graph, y) = Graph::capture(&Pool::new().unwrap(), || &x + 1.0).unwrap();
    graph.replay().unwrap();
    assert_eq!(y, &x + 1.0);
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

/// Losses, freezes, the parameters at the end, and how many graphs there were.
type Trained = (Vec<f64>, Vec<(String, u64)>, Vec<Tensor>, usize);

/// Trains three adapted layers with dropout between them, on two shapes of batches, every third
/// update in two pieces, with labels that are masked in other numbers at every step, while
/// matrices freeze.
fn train(mut graphs: StepGraphs) -> Trained {
    tch::manual_seed(7);
    let config = AfloraConfig { pm_trainable: PmTrainable::All, ..Default::default() };
    let method = Aflora::new(config).unwrap();
    let fixed = |shape: &[i64], name: &str| normal(shape, 0.3, 1, name).to_device(GPU);
    let wrap = |name: &str, from, to| {
        let bs = Some(fixed(&[to], &format!("{name}.bias")));
        let layer = nn::Linear { ws: fixed(&[to, from], name), bs };
        AdaptedLinear::wrap(name, layer, Block::Ffn, &method, 5).unwrap()
    };
    let layers = [wrap("one", 24, 64), wrap("two", 64, 64), wrap("three", 64, 8)];
    let parameters = layers.iter().flat_map(|l| l.adapter().parameters()).collect();
    let config = TunerConfig { max_grad_norm: Some(1.0), ..Default::default() };
    let mut tuner = Tuner::new(config, &method, parameters, 10, 100).unwrap();
    let mut losses = Vec::new();
    for step in 0..100 {
        let rows = [64, 128][step % 2];
        let pieces = if step % 3 == 0 { 2 } else { 1 };
        let masked = |piece: i64| (5 * step as i64 + 11 * piece) % 23;
        let labelled: i64 = (0..pieces).map(|piece| rows - masked(piece)).sum();
        let mut sum = 0.0;
        for piece in 0..pieces {
            // On the host, as a data loader gives them.
            let x = normal(&[rows, 24], 0.3, 1, &format!("x {step} {piece}"));
            let labels = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(3);
            let _ = labels.narrow(0, 0, masked(piece)).fill_(-100);
            let loss = graphs.accumulate(&mut tuner, &[x, labels], labelled as f64, |batch| {
                let [one, two, three] = &layers;
                let h = one.forward(&batch[0]).relu().dropout(0.1, true);
                let y = three.forward(&two.forward(&h).relu());
                Ok::<_, aflora_core::Error>((summed(&y, &batch[1]), Checkpoints::default()))
            });
            sum += loss.unwrap().double_value(&[]);
        }
        losses.push(sum);
        tuner.update().unwrap();
    }
    assert_eq!(graphs.remark(), None);
    let values = layers.iter().flat_map(|l| l.adapter().tensors());
    let values = values.map(|t| t.tensor.detach().copy()).collect();
    (losses, tuner.accounting().frozen_at.clone(), values, graphs.len())
}

#[test]
fn recorded_training_is_eager_training() {
    let Some(_turn) = gpu() else { return };
    let (eager, frozen, values, none) = train(StepGraphs::off(GPU));
    let (found, frozen_in_graphs, values_in_graphs, graphs) = train(StepGraphs::new(GPU));
    // Two shapes, each as the first piece of an update and as a later one.
    assert_eq!((none, graphs), (0, 4));
    assert_eq!(frozen.len(), 6, "all matrices freeze: {frozen:?}");
    assert_eq!(frozen_in_graphs, frozen);
    // Dropout draws the same numbers: what differs is rounding, in another order of sums.
    for (step, (a, b)) in found.iter().zip(&eager).enumerate() {
        assert!((a - b).abs() < 1e-3 * b.abs(), "step {step}: {a} recorded, {b} eager");
    }
    for (a, b) in values_in_graphs.iter().zip(&values) {
        let error = (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]);
        assert!(error < 1e-2, "{error:e}");
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
            let mut loss = 0.0;
            for piece in 0..pieces {
                let batch = [&x, &labels].map(|t| t.narrow(0, piece * rows, rows));
                let labelled = (8 - update) as f64;
                let part = graphs.accumulate(&mut tuner, &batch, labelled, |batch| {
                    let loss = summed(&batch[0].matmul(&w), &batch[1]);
                    Ok::<_, aflora_core::Error>((loss, Checkpoints::default()))
                });
                loss += part.unwrap().double_value(&[]);
            }
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
        let loss = graphs.accumulate(
            &mut tuner,
            &[Tensor::ones([4], (Kind::Float, Device::Cpu))],
            1.0,
            |x| {
                let loss = (&w * &x[0]).square().sum(Kind::Float);
                let _ = loss.double_value(&[]);
                Ok::<_, aflora_core::Error>((loss, Checkpoints::default()))
            },
        );
        assert!(loss.unwrap().double_value(&[]) > 0.0);
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
        let loss = graphs.accumulate(&mut tuner, &batch, 1.0, |x| {
            let loss = (&w * &x[0]).square().sum(Kind::Float);
            Ok::<_, aflora_core::Error>((loss, Checkpoints::default()))
        });
        tuner.update_of(Some(&loss.unwrap())).unwrap();
        let in_a_row = [0, 0, 0, 0, 1, 2, 0][step];
        assert_eq!(tuner.skipped().unwrap().1, in_a_row, "step {step}");
        assert!(w.isfinite().all().int64_value(&[]) == 1, "step {step}");
    }
    assert_eq!(tuner.skipped().unwrap().0, 2);
    assert_eq!(graphs.len(), 1);
}
