//! Gradient checkpointing gives the gradients of the plain pass, dropout included.

use aflora_core::Checkpoints;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// libtorch's generator is one for all threads: a test that seeds it runs alone.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

const KIND: (Kind, Device) = (Kind::Float, Device::Cpu);

struct Model {
    weights: Vec<Rc<Tensor>>,
    head: Tensor,
    dropout: f64,
}

impl Model {
    fn new(dropout: f64) -> Self {
        let leaf = || Tensor::randn([8, 8], KIND).set_requires_grad(true);
        Model { weights: (0..4).map(|_| Rc::new(leaf())).collect(), head: leaf(), dropout }
    }

    fn leaves(&self) -> Vec<&Tensor> {
        self.weights.iter().map(Rc::as_ref).chain([&self.head]).collect()
    }

    fn forward(&self, x: &Tensor, checkpoints: Option<&mut Checkpoints>) -> Tensor {
        let dropout = self.dropout;
        let block = move |w: &Tensor, x: &Tensor| x + x.matmul(w).tanh().dropout(dropout, true);
        let mut x = x.shallow_clone();
        match checkpoints {
            None => self.weights.iter().for_each(|w| x = block(w, &x)),
            Some(checkpoints) => {
                for w in self.weights.clone() {
                    x = checkpoints.run(&x, move |x| block(&w, x));
                }
            }
        }
        x.matmul(&self.head).square().mean(Kind::Float)
    }
}

#[test]
fn gradients_are_those_of_the_plain_pass() {
    let _alone = alone();
    tch::manual_seed(3);
    let model = Model::new(0.0);
    let x = Tensor::randn([5, 8], KIND);
    let loss = model.forward(&x, None);
    let plain = Checkpoints::default().gradients(&loss, &model.leaves()).unwrap();
    let mut checkpoints = Checkpoints::new(false);
    let loss = model.forward(&x, Some(&mut checkpoints));
    let found = checkpoints.gradients(&loss, &model.leaves()).unwrap();
    assert_eq!(found, plain);
}

#[test]
fn a_chain_reads_what_an_earlier_one_gave_in_the_end() {
    let _alone = alone();
    tch::manual_seed(3);
    let model = Model::new(0.0);
    let (source, target) = (Tensor::randn([5, 8], KIND), Tensor::randn([5, 8], KIND));
    // The first two weights are an encoder's, the others a decoder's, which reads it in each block.
    let encode = |w: &Tensor, x: &Tensor| x + x.matmul(w).tanh();
    let decode = |w: &Tensor, x: &Tensor, encoded: &Tensor| x + (x.matmul(w) * encoded).tanh();
    let (lower, upper) = model.weights.split_at(2);
    let loss = |x: &Tensor| x.matmul(&model.head).square().mean(Kind::Float);

    let encoded = lower.iter().fold(&source * 1.0, |x, w| encode(w, &x));
    // What is before a chain may train: here the encoder's first weight, too.
    let begin = target.matmul(&lower[0]);
    let decoded = upper.iter().fold(begin.shallow_clone(), |x, w| decode(w, &x, &encoded));
    let plain = Checkpoints::default().gradients(&loss(&decoded), &model.leaves()).unwrap();

    let (mut first, mut second) = (Checkpoints::new(false), Checkpoints::new(false));
    let encoded = lower
        .iter()
        .cloned()
        .fold(source.shallow_clone(), |x, w| first.run(&x, move |x| encode(&w, x)));
    let decoded = upper.iter().cloned().fold(target.matmul(&lower[0]), |x, w| {
        let encoded = encoded.shallow_clone();
        second.run(&x, move |x| decode(&w, x, &encoded))
    });
    let both = first.followed_by(second);
    assert_eq!(format!("{both:?}"), "Checkpoints { segments: 4 }");
    let found = both.gradients(&loss(&decoded), &model.leaves()).unwrap();
    for (found, plain) in found.iter().zip(&plain) {
        assert!(found.allclose(plain, 1e-5, 1e-7, false));
    }
}

#[test]
fn the_second_run_draws_the_dropout_of_the_first() {
    let _alone = alone();
    tch::manual_seed(3);
    let model = Model::new(0.5);
    let x = Tensor::randn([5, 8], KIND);
    // What `new` draws first.
    tch::manual_seed(4);
    let drawn = Tensor::randint(i64::MAX / 2, [1], (Kind::Int64, Device::Cpu));
    let seed = drawn.int64_value(&[0]);
    tch::manual_seed(4);
    let mut checkpoints = Checkpoints::new(true);
    let loss = model.forward(&x, Some(&mut checkpoints));
    let found = checkpoints.gradients(&loss, &model.leaves()).unwrap();
    // The plain pass with the same masks: each block seeded as its segment was.
    let mut h = x.shallow_clone();
    for (i, w) in model.weights.iter().enumerate() {
        tch::manual_seed(seed + i as i64);
        h = &h + h.matmul(w).tanh().dropout(0.5, true);
    }
    let plain_loss = h.matmul(&model.head).square().mean(Kind::Float);
    assert_eq!(loss, plain_loss);
    let plain = Checkpoints::default().gradients(&plain_loss, &model.leaves()).unwrap();
    assert_eq!(found, plain);
}

#[test]
fn a_leaf_that_is_not_reached_has_no_gradient() {
    let _alone = alone();
    let model = Model::new(0.0);
    let idle = Tensor::ones([2], KIND).set_requires_grad(true);
    let mut checkpoints = Checkpoints::new(false);
    let loss = model.forward(&Tensor::randn([5, 8], KIND), Some(&mut checkpoints));
    let leaves = [model.weights[0].as_ref(), &idle];
    let found = checkpoints.gradients(&loss, &leaves).unwrap();
    assert!(found[0].defined() && !found[1].defined());
}

#[test]
fn a_loss_of_another_pass_than_its_checkpoints_is_refused() {
    let _alone = alone();
    let model = Model::new(0.0);
    let x = Tensor::randn([5, 8], KIND);
    let (mut first, mut second) = (Checkpoints::new(false), Checkpoints::new(false));
    let loss = model.forward(&x, Some(&mut first));
    let _ = model.forward(&x, Some(&mut second));
    let error = second.gradients(&loss, &model.leaves()).unwrap_err();
    assert!(error.to_string().contains("are of another forward pass"), "{error}");
}
