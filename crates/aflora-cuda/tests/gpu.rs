//! Kernels and graphs on a GPU, held to libtorch's own operations in double precision. Without a
//! GPU, each test says on standard error that it was skipped.

mod adamw;
mod compiled;
mod decoders;
mod disentangled;
mod emulation;
mod fp8;
mod joint_norm;
mod kept;
mod order;
mod paths;
mod scores;

use aflora_cuda::{ops, Graph, Pool};
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use tch::{Device, Kind, Tensor};

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

/// Seeds a test on the CPU. libtorch seeds GPUs with it, too, so where there is one the test takes its turn.
#[must_use]
fn seeded(seed: i64) -> Option<MutexGuard<'static, ()>> {
    let turn =
        aflora_cuda::load().and_then(|()| aflora_cuda::available()).ok().and_then(|()| gpu());
    tch::manual_seed(seed);
    turn
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
    assert_within(what, found, expected, if kind == Kind::Float { 2e-5 } else { 3e-2 });
}

fn assert_within(what: &str, found: &Tensor, expected: &Tensor, allowed: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let expected = expected.detach().to_kind(Kind::Double);
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let error =
        (found.detach().to_kind(Kind::Double) - expected).abs().max().double_value(&[]) / scale;
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

/// The allocator takes no capture into a pool that no graph uses and a tensor still does, and a
/// capture that it refused left a generator behind that believed it goes on.
#[test]
fn a_pool_takes_another_graph_while_a_tensor_of_one_that_is_gone_lives() {
    let Some(_turn) = gpu() else { return };
    let pool = Pool::new().unwrap();
    let x = random(&[64], Kind::Float);
    let work = || x.dropout(0.5, true) + 1.0;
    let _ = work();
    let (graph, kept) = Graph::capture(&pool, work).unwrap();
    graph.replay().unwrap();
    let values = kept.copy();
    drop(graph);
    let (graph, other) = Graph::capture(&pool, work).unwrap();
    graph.replay().unwrap();
    assert!(other.ne_tensor(&values).any().int64_value(&[]) == 1);
    let dropped = Tensor::ones([1000], (Kind::Float, GPU)).dropout(0.5, true);
    assert!(dropped.eq(0.0).any().int64_value(&[]) == 1);
}

#[test]
fn waking_a_gpu_draws_nothing_and_no_tensor_stays() {
    let Some(_gpu) = gpu() else { return };
    let drawn = || {
        tch::manual_seed(7);
        Tensor::rand([8], (Kind::Float, GPU))
    };
    let expected = drawn();
    // The first time libraries take memory of their own.
    aflora_cuda::wake(0);
    aflora_cuda::awake();
    let before = aflora_cuda::memory(0).unwrap().allocated;
    tch::manual_seed(7);
    aflora_cuda::wake(0);
    aflora_cuda::awake();
    assert_eq!(aflora_cuda::memory(0).unwrap().allocated, before);
    assert_eq!(Tensor::rand([8], (Kind::Float, GPU)), expected);
    assert_eq!(drawn(), expected);
}

#[test]
fn numbers_are_fetched_as_they_were_when_they_were_asked_for() {
    let Some(_turn) = gpu() else { return };
    let mut t = Tensor::arange(1000, (Kind::Float, GPU));
    let expected = (&t * 2.0).to_device(Device::Cpu);
    let _ = t.g_mul_scalar_(2.0);
    let fetched = ops::fetch(&t).unwrap();
    let _ = t.zero_();
    assert_eq!(fetched.wait().unwrap(), expected);
    assert!(ops::fetch(&expected).is_none(), "it is there already");
    // One that nobody waits for.
    drop(ops::fetch(&t));
}
