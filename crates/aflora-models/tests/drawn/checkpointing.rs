//! Checkpointed blocks of every model, with adapters, train as plain ones do, and so does a loss that
//! is made in chunks.

use crate::alone;
use crate::common::tiny::Tiny;
use crate::common::{self, cpu, relative, writers};
use aflora_core::adapter::MethodConfig;
use aflora_core::optim::Gradients;
use aflora_core::{Tuner, TunerConfig};
use aflora_models::{build, weights, AdaptedModel, Head, Options, Pattern, Targets};
use tch::{Kind, Tensor};

/// A model of `fixtures`, without dropout of its own, whose adapters are away from their start.
struct Training<'a> {
    tiny: &'a Tiny,
    model: AdaptedModel,
    tuner: Tuner,
}

impl<'a> Training<'a> {
    fn new(tiny: &'a Tiny, method: &MethodConfig, options: &Options) -> Self {
        Self::beside(&[], tiny, method, options)
    }

    /// With these modules trained in full.
    fn beside(
        modules: &[String],
        tiny: &'a Tiny,
        method: &MethodConfig,
        options: &Options,
    ) -> Self {
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("config.json");
        std::fs::write(&config, tiny.without_dropout()).unwrap();
        let backbone = build(tiny.kind, &config, tiny.head, options).unwrap();
        weights::load(backbone.as_ref(), &tiny.path()).unwrap();
        let target_modules = Pattern::Regex(".*".into());
        let targets = Targets { target_modules, ..Default::default() };
        let method = method.build().unwrap();
        let base = options.base;
        let model = AdaptedModel::new(backbone, method.as_ref(), &targets, modules, base, 3);
        let model = model.unwrap();
        // Away from the start, where B is zero and so is A's gradient.
        for (i, parameter) in model.parameters().iter().enumerate() {
            if method.adapts() {
                tch::manual_seed(i as i64);
                let mut leaf = parameter.leaf.detach();
                let _ = leaf.normal_(0.0, 0.1);
            }
        }
        let config = TunerConfig::default();
        let tuner = Tuner::new(config, method.as_ref(), model.parameters(), 10, 10).unwrap();
        Training { tiny, model, tuner }
    }

    /// A training pass's loss and gradients, and whether they went through checkpoints.
    fn step(&self) -> (Tensor, Gradients, bool) {
        let pass = self.model.forward(&self.tiny.batch(1), true).unwrap();
        let loss = match self.tiny.head {
            Head::Language => writers::loss(&pass.logits, &self.tiny.io),
            _ => common::loss(&pass.logits, &self.tiny.io["batch1.labels"]),
        };
        let checkpointed = !pass.checkpoints.is_empty();
        let mut gradients = self.tuner.arena().buffer();
        self.tuner.arena().add_gradients(&loss, pass.checkpoints, &mut gradients).unwrap();
        (loss, gradients, checkpointed)
    }
}

impl Training<'_> {
    /// The loss over the vocabulary and its gradients: from all logits, or in chunks of so many
    /// tokens.
    fn next_tokens(&self, chunk: Option<i64>) -> (Tensor, Tensor) {
        let (batch, labels) = (self.tiny.batch(1), &self.tiny.io["right.labels"]);
        let (loss, checkpoints) = match chunk {
            None => {
                let pass = self.model.forward(&batch, true).unwrap();
                let (logits, labels) = (pass.logits.flatten(0, 1), labels.flatten(0, 1));
                let (none, sum) = (None::<&Tensor>, tch::Reduction::Sum);
                (logits.cross_entropy_loss(&labels, none, sum, -100, 0.1), pass.checkpoints)
            }
            Some(chunk) => {
                let tokens = self.model.next_tokens(&batch, true).unwrap().in_chunks_of(chunk);
                (tokens.loss(labels, 0.1).unwrap(), tokens.checkpoints)
            }
        };
        let mut gradients = self.tuner.arena().buffer();
        self.tuner.arena().add_gradients(&(&loss / 7.0), checkpoints, &mut gradients).unwrap();
        (loss.detach(), gradients.flat().copy())
    }
}

#[test]
fn a_loss_in_chunks_gives_every_writers_adapters_and_heads_their_gradients() {
    let _alone = alone();
    let mut heads = 0;
    for tiny in &Tiny::writers() {
        let own = tiny.load(&cpu()).var_store().variables().contains_key("lm_head.weight");
        heads += usize::from(own);
        let modules = if own { vec![vec![], vec!["lm_head".to_string()]] } else { vec![vec![]] };
        for (modules, checkpointing) in modules.iter().zip([false, true]) {
            let options = Options { checkpointing, ..cpu() };
            let training = Training::beside(modules, tiny, &lora(0.0), &options);
            let (loss, plain) = training.next_tokens(None);
            let (found, gradients) = training.next_tokens(Some(3));
            let error = relative(&gradients, &plain);
            assert!(error < 1e-5, "{} {modules:?}: {error:e}", tiny.folder);
            let error = relative(&found, &loss);
            assert!(error < 1e-5, "{} {modules:?}: {error:e}", tiny.folder);
            let tokens = training.model.next_tokens(&tiny.batch(1), false).unwrap();
            let losses = |tokens: aflora_models::NextTokens<'_>| {
                tokens.losses(&tiny.io["right.labels"], &[0.1, 0.0]).unwrap()
            };
            let chunked = losses(tokens.in_chunks_of(3));
            let tokens = training.model.next_tokens(&tiny.batch(1), false).unwrap();
            assert!(relative(&chunked, &losses(tokens)) < 1e-5, "{}", tiny.folder);
        }
    }
    assert!(heads > 0, "no model has a head of its own");
}

/// LoRA with a dropout of its own.
fn lora(dropout: f64) -> MethodConfig {
    let mut method = MethodConfig::defaults("lora").unwrap();
    if let MethodConfig::Lora(lora) = &mut method {
        lora.dropout = dropout;
    }
    method
}

fn models() -> Vec<Tiny> {
    Tiny::classifiers().into_iter().chain(Tiny::writers()).collect()
}

#[test]
fn checkpointed_blocks_give_the_very_gradients() {
    let _alone = alone();
    for model in &models() {
        let gradients = |checkpointing, base| {
            let options = Options { checkpointing, base, ..cpu() };
            let (loss, gradients, checkpointed) = Training::new(model, &lora(0.0), &options).step();
            assert_eq!(checkpointed, checkpointing, "{}", model.folder);
            (gradients.flat().shallow_clone(), loss)
        };
        for base in [Kind::Float, Kind::BFloat16] {
            let plain = gradients(false, base);
            assert!(plain.0.abs().sum(Kind::Double).double_value(&[]) > 0.0, "{}", model.folder);
            let found = gradients(true, base);
            if !matches!(model.kind, "bart" | "t5") {
                assert_eq!(found, plain, "{}, {base:?}", model.folder);
                continue;
            }
            // What every block of its decoder reads has a gradient of several terms: their order
            // differs, and with it the last digits.
            assert_eq!(found.1, plain.1, "{}, {base:?}", model.folder);
            let error = common::relative(&found.0, &plain.0);
            let most = if base == Kind::Float { 1e-6 } else { 4e-2 };
            assert!(error < most, "{}, {base:?}: {error:e}", model.folder);
        }
    }
}

#[test]
fn what_stands_before_the_blocks_trains_through_checkpoints_too() {
    let _alone = alone();
    for model in &models() {
        // LLaMA and most of its kin have no biases.
        let weights = model.load(&cpu());
        let weights = weights.var_store().variables();
        let methods = match weights.keys().any(|name| name.ends_with("bias")) {
            true => &["full", "bitfit"][..],
            false => &["full"],
        };
        for method in methods.iter().map(|name| MethodConfig::defaults(name).unwrap()) {
            let gradients = |checkpointing| {
                let tiny = Training::new(model, &method, &Options { checkpointing, ..cpu() });
                tiny.step().1.flat().shallow_clone()
            };
            let (plain, found) = (gradients(false), gradients(true));
            // What all blocks share has a gradient of several terms: their order differs.
            let error = common::relative(&found, &plain);
            assert!(error < 1e-6, "{}, {method:?}: {error:e}", model.folder);
        }
    }
}

#[test]
fn checkpointed_blocks_draw_the_adapters_dropout_once() {
    let _alone = alone();
    // A dropped input has a gradient of zero in A: the same ones in both runs of a block.
    let options = Options { checkpointing: true, ..cpu() };
    for folder in ["writers/llama", "models/deberta_v3"] {
        let model = Tiny::of(folder);
        let tiny = Training::new(&model, &lora(0.5), &options);
        let step = |seed| {
            tch::manual_seed(seed);
            let (loss, gradients, _) = tiny.step();
            (loss, gradients)
        };
        let of = |(loss, gradients): (Tensor, Gradients)| (loss, gradients.flat().shallow_clone());
        assert_eq!(of(step(5)), of(step(5)));
        assert_ne!(step(5).0, step(6).0);
        // The gradient is the loss's: a small step along it lowers the same draw's loss.
        let (before, gradients) = step(5);
        let norm = gradients.flat().square().sum(Kind::Double).double_value(&[]);
        let rate = 1e-3 / norm;
        tch::no_grad(|| {
            for (role, group) in tiny.tuner.arena().groups() {
                let mut values = group.values().shallow_clone();
                values -= gradients.get(role).unwrap() * rate;
            }
        });
        let fell = before.double_value(&[]) - step(5).0.double_value(&[]);
        assert!((fell / (rate * norm) - 1.0).abs() < 0.05, "{fell} against {}", rate * norm);
    }
}
