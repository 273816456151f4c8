//! Checkpointed segments in recorded passes.

use super::{gpu, GPU};
use aflora_core::adapter::{normal, Aflora, AfloraConfig, Role};
use aflora_core::optim::Parameter;
use aflora_core::{Checkpoints, Loss, Span, StepGraphs, Tuner, TunerConfig};
use tch::{Device, Kind, Tensor};

/// The losses of eight steps of three checkpointed segments with this dropout, and their weights in the end.
fn train(dropout: f64, graphs: &mut StepGraphs) -> (Vec<f64>, Tensor) {
    tch::manual_seed(7);
    let w = normal(&[3, 32, 32], 0.3, 1, "w").to_device(GPU).set_requires_grad(true);
    let parameter = Parameter::of_model("w", Role::Head, w.shallow_clone());
    let method = Aflora::new(AfloraConfig::default()).unwrap();
    let config = TunerConfig { warmup: Span::Steps(0), ..Default::default() };
    let mut tuner = Tuner::new(config, &method, vec![parameter], 8, 8).unwrap();
    let step = |step: i64| {
        let batch = [normal(&[16, 32], 1.0, 1, &format!("x {step}"))];
        let forward = |[x]: &[Tensor; 1]| -> aflora_core::Result<Loss> {
            let mut checkpoints = Checkpoints::new(true);
            let mut y = x.shallow_clone();
            for i in 0..3 {
                let own = w.shallow_clone();
                let segment = move |x: &Tensor| x.matmul(&own.get(i)).tanh().dropout(dropout, true);
                y = checkpoints.run(&y, segment);
            }
            Ok(Loss { value: y.square().sum(Kind::Float), checkpoints })
        };
        tuner.forward_backward([batch], 16.0, graphs, forward).unwrap();
        let loss = tuner.loss().unwrap().double_value(&[]);
        tuner.update().unwrap();
        loss
    };
    let losses = (0..8).map(step).collect();
    (losses, w.detach().to_device(Device::Cpu))
}

#[test]
fn checkpointed_segments_that_draw_nothing_are_recorded_and_others_say_why_not() {
    let Some(_turn) = gpu() else { return };
    for (dropout, recorded) in [(0.0, 1), (0.1, 0)] {
        let (mut eager, mut graphs) = (StepGraphs::off(GPU), StepGraphs::new(GPU));
        let (expected, found) = (train(dropout, &mut eager), train(dropout, &mut graphs));
        assert_eq!(graphs.len(), recorded, "dropout {dropout}");
        let remark = graphs.remark();
        assert_eq!(remark.is_some(), recorded == 0, "{remark:?}");
        assert!(remark.is_none_or(|why| why.contains("dropout")));
        for (a, b) in found.0.iter().zip(&expected.0) {
            assert!((a - b).abs() < 1e-4 * b.abs(), "dropout {dropout}: {found:?} {expected:?}");
        }
        let error = (&found.1 - &expected.1).abs().max().double_value(&[]);
        assert!(error < 1e-5, "dropout {dropout}: {error:e}");
        assert!(found.0[7] < found.0[0], "it trained: {:?}", found.0);
    }
}
