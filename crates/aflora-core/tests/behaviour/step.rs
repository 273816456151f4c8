//! What a step does, and in which order.

use aflora_core::adapter::{Adapter, Layer, Method, Role, Site, TensorSpec};
use aflora_core::freeze::FreezeCheck;
use aflora_core::optim::{Arena, Gradients, Parameter};
use aflora_core::{Error, Hook, Loss, Result, RunLength, Span, StepGraphs, Tuner, TunerConfig};
use aflora_cuda::{Place, World};
use std::cell::RefCell;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// What a method's hook saw: where in the step, the gradient's norm, and the parameter.
type Seen = Rc<RefCell<Vec<(&'static str, f64, f64)>>>;

/// A method that only looks on.
#[derive(Debug, Default)]
struct Witness(Seen);

impl Method for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn attach(&self, _: &[Layer], _: u64, _: Device) -> Result<Vec<Box<dyn Adapter>>> {
        Ok(Vec::new())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &[]
    }

    fn trainable_count(&self, _: &Site) -> i64 {
        0
    }

    fn hook(&self, _: RunLength, _: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        Ok(Some(Box::new(Witness(self.0.clone()))))
    }
}

impl Witness {
    fn see(&self, place: &'static str, arena: &Arena, gradients: Option<&Gradients>) {
        let number = |t: &Tensor| t.double_value(&[]);
        let norm = gradients.map_or(f64::NAN, |gradients| number(&gradients.flat().norm()));
        let value = number(&arena.group(Role::Weight).unwrap().values().get(0));
        self.0.borrow_mut().push((place, norm, value));
    }
}

impl Hook for Witness {
    fn penalty(&self, arena: &Arena) -> Result<Option<Tensor>> {
        self.see("penalty", arena, None);
        Ok(None)
    }

    fn score(&mut self, _: u64, arena: &mut Arena, gradients: &Gradients) -> Result<()> {
        self.see("score", arena, Some(gradients));
        Ok(())
    }

    fn freeze(
        &mut self,
        _: u64,
        arena: &mut Arena,
        gradients: &mut Gradients,
    ) -> Result<Option<FreezeCheck>> {
        self.see("freeze", arena, Some(gradients));
        Ok(None)
    }

    fn after_update(&mut self, _: u64, arena: &mut Arena, gradients: &Gradients) -> Result<()> {
        self.see("after update", arena, Some(gradients));
        Ok(())
    }
}

/// A parameter `[4]` of twos, what trains it, and what its method sees of that.
fn trained(max_grad_norm: Option<f64>) -> (Tensor, Tuner, Seen) {
    let w = Tensor::full([4], 2.0, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let parameter = Parameter::of_model("w", Role::Weight, w.shallow_clone());
    let method = Witness::default();
    let config = TunerConfig { max_grad_norm, warmup: Span::Steps(0), ..Default::default() };
    let tuner = Tuner::new(config, &method, vec![parameter], 10, 10).unwrap();
    (w, tuner, method.0)
}

#[test]
fn scores_see_what_backward_left_and_the_update_what_was_clipped() {
    let (w, mut tuner, seen) = trained(Some(0.5));
    // d/dw Σ w² = 4 at each of four places: a norm of 8.
    let report = tuner.step(w.square().sum(Kind::Float)).unwrap();
    assert_eq!(report.loss.double_value(&[]), 16.0);
    assert_eq!(report.grad_norm.double_value(&[]), 8.0);
    let seen = seen.take();
    let places: Vec<&str> = seen.iter().map(|(place, ..)| *place).collect();
    assert_eq!(places, ["penalty", "score", "freeze", "after update"]);
    assert_eq!((seen[1].1, seen[2].1), (8.0, 8.0), "not clipped yet");
    assert!((seen[3].1 - 0.5).abs() < 1e-6, "clipped: {}", seen[3].1);
    assert_eq!((seen[1].2, seen[2].2), (2.0, 2.0), "not updated yet");
    assert!(seen[3].2 < 2.0, "updated: {}", seen[3].2);
}

#[test]
fn a_step_that_is_not_finite_is_neither_scored_nor_updated() {
    let (w, mut tuner, seen) = trained(None);
    let report = tuner.step(w.square().sum(Kind::Float) * f64::NAN).unwrap();
    assert_eq!(report.skipped.int64_value(&[]), 1);
    assert_eq!(seen.take().len(), 1, "the penalty alone was asked for");
    assert_eq!((tuner.completed(), w.double_value(&[0])), (1, 2.0));
}

#[test]
fn batches_of_unequal_size_add_up_to_the_mean_over_all_items() {
    let x = Tensor::arange(20, (Kind::Float, Device::Cpu)).view([5, 4]) / 10.0;
    let (w, mut tuner, seen) = trained(None);
    let mean = x.matmul(&w).square().mean(Kind::Float);
    let expected = tuner.arena().gradients(&mean).unwrap();
    let batches = [(0, 3), (3, 1), (4, 1)].map(|(start, rows)| [x.narrow(0, start, rows)]);
    let mut graphs = StepGraphs::off(Device::Cpu);
    let forward =
        |[x]: &[Tensor; 1]| Ok::<_, Error>(Loss::from(x.matmul(&w).square().sum(Kind::Float)));
    tuner.forward_backward(batches, 5.0, &mut graphs, forward).unwrap();
    assert!(tuner.gradients().flat().allclose(expected.flat(), 1e-6, 1e-6, false));
    let loss = tuner.loss().unwrap().double_value(&[]);
    assert!((loss - mean.double_value(&[])).abs() < 1e-5 * loss, "{loss}");
    assert_eq!(tuner.update().unwrap().loss.double_value(&[]), loss);
    let places: Vec<&str> = seen.take().into_iter().map(|(place, ..)| place).collect();
    assert_eq!(places, ["penalty", "score", "freeze", "after update"], "once a step");
    assert!(matches!(tuner.update(), Err(Error::NoGradient)));
}

/// The ranks of a world on this machine: this program's test `name`, started once for each; none in the
/// process that starts them.
fn ranks(name: &str, size: usize) -> Option<World> {
    const RANK: &str = "AFLORA_TEST_RANK";
    let place = |rank: usize, port: u16| Place {
        rank,
        size,
        local: Some((rank, size)),
        host: "127.0.0.1".into(),
        port,
        served: false,
        name: name.into(),
    };
    if let Ok(said) = std::env::var(RANK) {
        let (rank, port) = said.split_once(' ').unwrap();
        let place = place(rank.parse().unwrap(), port.parse().unwrap());
        return Some(World::join(&place, Duration::from_secs(60), |_| {}).unwrap());
    }
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    // As this program's tests are called.
    let name = format!("step::{name}");
    let start = |rank| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.args([&name, "--exact"]).env(RANK, format!("{rank} {port}"));
        command.env("OMP_NUM_THREADS", "1").stdout(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<Child> = (0..size).map(start).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }
    None
}

/// Steps of 5 rows, of 1, which is one rank's alone, and of 4: as one process makes them.
#[test]
fn ranks_move_as_one_process_does_and_one_that_differs_is_named() {
    let Some(world) = ranks("ranks_move_as_one_process_does_and_one_that_differs_is_named", 2)
    else {
        return;
    };
    let x = Tensor::arange(40, (Kind::Float, Device::Cpu)).view([10, 4]) / 10.0;
    let forward = |w: &Tensor, x: &Tensor| Loss::from(x.matmul(w).square().sum(Kind::Float));
    let (one, mut alone, _) = trained(Some(0.5));
    let (w, mut tuner, seen) = trained(Some(0.5));
    tuner.join(world.clone());
    for (start, rows) in [(0i64, 5i64), (5, 1), (6, 4)] {
        let all: Vec<i64> = (start..start + rows).collect();
        let batches = |rows: Vec<i64>| rows.into_iter().map(|row| [x.narrow(0, row, 1)]);
        let mut graphs = StepGraphs::off(Device::Cpu);
        let items = rows as f64;
        let pass = |[x]: &[Tensor; 1]| Ok::<_, Error>(forward(&one, x));
        alone.forward_backward(batches(all.clone()), items, &mut graphs, pass).unwrap();
        let expected = alone.update().unwrap();
        let pass = |[x]: &[Tensor; 1]| Ok::<_, Error>(forward(&w, x));
        tuner.ask_to_stop(start == 5 && world.rank() == 1);
        tuner.forward_backward(batches(world.share(&all)), items, &mut graphs, pass).unwrap();
        let found = tuner.update().unwrap();
        let near = |a: &Tensor, b: &Tensor| {
            let (a, b) = (a.double_value(&[]), b.double_value(&[]));
            assert!((a - b).abs() <= 1e-5 * b.abs(), "{a}, {b}");
        };
        near(&found.loss, &expected.loss);
        near(&found.grad_norm, &expected.grad_norm);
        assert!(w.allclose(&one, 1e-5, 1e-6, false));
        assert_eq!(tuner.asked_to_stop(), u64::from(start == 5), "every rank knows");
        tuner.check_equal().unwrap();
    }
    let penalties = seen.take().iter().filter(|(place, ..)| *place == "penalty").count();
    // On rank 0 alone, once a step.
    assert_eq!(penalties, if world.leads() { 3 } else { 0 });
    if world.rank() == 1 {
        // As little as there is.
        let bits = w.detach().view_dtype(Kind::Int);
        let _ = bits.get(2).g_add_scalar_(1);
    }
    let error = tuner.check_equal().unwrap_err().to_string();
    assert!(error.starts_with("behind step 3, what trains on rank 1 is not"), "{error}");
    world.leave().unwrap();
}
