//! An update is the same however it is cut into passes, and an evaluation whatever it takes at
//! once: for every kind of task, with labels that are masked, cut off or smoothed.

use crate::common::{self, json, workplace};
use aflora_core::{Loss, StepGraphs};
use aflora_cuda::World;
use aflora_models::AdaptedModel;
use aflora_record::Selection;
use aflora_run::config;
use aflora_run::run::failure::Pass;
use aflora_run::run::objective::{Evaluated, Objective};
use aflora_run::run::prepare::{prepare, Prepared};
use aflora_run::run::update::Update;
use aflora_run::task::Examples;
use aflora_run::ui::{for_stderr, Progress};
use serde_json::{json, Value};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The tiny models without dropout, which draws anew in every pass, and texts of unequal length.
fn place() -> tempfile::TempDir {
    let place = workplace();
    let config = place.path().join("minilm/config.json");
    let mut bert = json(&config);
    for key in ["attention_probs_dropout_prob", "hidden_dropout_prob"] {
        bert[key] = 0.0.into();
    }
    fs::write(config, bert.to_string()).unwrap();
    let models = common::root().join("configs/models");
    for name in ["tiny-bart", "tiny-llama"] {
        let to = place.path().join("configs/models").join(name);
        fs::create_dir_all(&to).unwrap();
        for file in ["config.json", "tokenizer.json"] {
            fs::copy(models.join(name).join(file), to.join(file)).unwrap();
        }
    }
    let words = |n: usize| ["one", "twenty", "three hundred and", "four", "five"][..n].join(" ");
    let row = |i: usize| json!({ "input": words(1 + i % 5), "target": words(1 + i * 3 % 5) });
    let lines: Vec<String> = (0..11).map(|i| row(i).to_string()).collect();
    fs::create_dir(place.path().join("lines")).unwrap();
    for split in ["train", "dev"] {
        fs::write(place.path().join(format!("lines/{split}.jsonl")), lines.join("\n")).unwrap();
    }
    place
}

fn prepared(place: &Path, more: &[&str]) -> Prepared {
    let fixed = ["device=cpu", "precision=fp32", "threads=1", "limit=11", "max_length=32"];
    let data = format!("data={}", place.display());
    let overrides = fixed.iter().chain(more).map(|s| s.to_string()).chain([data]);
    let overrides: Vec<String> = overrides.collect();
    let resolved = config::load(&place.join(common::CONFIG), &overrides).unwrap();
    prepare(&resolved, &mut *for_stderr().0).unwrap()
}

/// Rows, loss and gradient of each of three epochs' updates.
fn updates(run: &Prepared, cut: (usize, usize)) -> Vec<(Vec<usize>, f64, Tensor)> {
    let mut tuner = run.tuner().unwrap();
    let mut graphs = StepGraphs::off(run.device);
    let objective = run.objective.as_ref();
    let epochs = (0..3).flat_map(|epoch| Update::epoch(objective, cut, 7, epoch, &World::alone()));
    let made = epochs.map(|update| {
        update.forward_backward(objective, &run.model, &mut tuner, &mut graphs).unwrap();
        let loss = tuner.loss().unwrap().shallow_clone();
        let gradient = tuner.gradients().flat().copy();
        // Nothing moves: every cut sees the same weights.
        tuner.discard();
        (update.rows().collect(), loss.double_value(&[]), gradient)
    });
    made.collect()
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
}

/// Eight rows an update, and three at the epoch's end.
#[test]
fn an_update_is_the_same_in_every_split() {
    let place = place();
    let writes = ["task=lines", "max_length=48"];
    let tasks: [(&str, Vec<&str>); 8] = [
        ("classes", vec!["task=mrpc", "model=minilm"]),
        ("scores", vec!["task=stsb", "model=minilm"]),
        ("a penalty", vec!["task=mrpc", "model=minilm", "method=adalora"]),
        ("gates", vec!["task=mrpc", "model=minilm", "method=sora"]),
        ("encoder-decoder", [&writes[..], &["model=tiny-bart"]].concat()),
        ("decoder", [&writes[..], &["model=tiny-llama"]].concat()),
        (
            "decoder, smoothed and cut",
            [
                &["task=lines", "model=tiny-llama", "max_length=24"],
                &["task.label_smoothing=0.1", "method=lora"][..],
            ]
            .concat(),
        ),
        (
            "decoder, on prompts too",
            [&writes[..], &["model=tiny-llama", "task.train_on_inputs=true"]].concat(),
        ),
    ];
    for (name, task) in tasks {
        let run = prepared(place.path(), &task);
        // Paths that change nothing at the start have no gradient in all but one of their parts.
        tch::no_grad(|| {
            for (i, p) in (0..).zip(run.model.parameters()) {
                let noise = aflora_core::adapter::normal(&p.leaf.size(), 0.05, i, &p.name);
                let _ = p.leaf.shallow_clone().g_add_(&noise);
            }
        });
        let whole = updates(&run, (8, 1));
        assert!(whole.iter().any(|(rows, ..)| rows.len() < 8), "{name}: none is left over");
        for cut in [(4, 2), (2, 4), (1, 8)] {
            for ((rows, loss, gradient), (all, mean, wanted)) in
                updates(&run, cut).iter().zip(&whole)
            {
                let what = format!("{name}, {} × {}, {} rows", cut.0, cut.1, all.len());
                assert_eq!(rows, all, "{what}");
                assert!((loss - mean).abs() < 2e-6 * mean.abs(), "{what}: {loss}, whole {mean}");
                let far = far(gradient, wanted);
                assert!(far < 2e-5, "{what}: the gradient is {far:e} away");
            }
        }
    }
}

/// What is uneven is what means of means get wrong.
#[test]
fn the_denominator_is_what_has_a_label() {
    let place = place();
    let run = prepared(place.path(), &["task=lines", "model=tiny-llama", "max_length=48"]);
    let items: Vec<f64> = (0..11).map(|row| run.objective.items(&[row])).collect();
    let batch = run.objective.batch(&(0..11).collect::<Vec<_>>());
    let labelled =
        batch.labels.ne(-100).sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Int64);
    assert_eq!(
        items.iter().map(|&n| n as i64).collect::<Vec<_>>(),
        Vec::<i64>::try_from(labelled).unwrap()
    );
    assert!(items.iter().any(|n| *n != items[0]), "{items:?}");
    let run = prepared(place.path(), &["task=stsb", "model=minilm"]);
    assert_eq!(run.objective.items(&[4, 1, 2]), 3.0);
    // Of the paraphrases' labels, by what each weighs.
    let weights = "task.class_weights=[0.5, 2]";
    let run = prepared(place.path(), &["task=mrpc", "model=minilm", weights]);
    let labels = Vec::<i64>::try_from(run.objective.batch(&[4, 1, 2]).labels).unwrap();
    let sum: f64 = labels.iter().map(|&label| [0.5, 2.0][label as usize]).sum();
    assert_eq!(run.objective.items(&[4, 1, 2]), sum);
}

#[test]
fn an_evaluation_is_the_same_whatever_it_takes_at_once() {
    let place = place();
    for task in [
        &["task=mrpc", "model=minilm"][..],
        &["task=stsb", "model=minilm"],
        &["task=lines", "model=tiny-bart"],
        &["task=lines", "model=tiny-llama", "task.label_smoothing=0.1"],
    ] {
        let found = ["eval_batch_size=64", "eval_batch_size=3", "eval_batch_size=1"].map(|size| {
            let run = prepared(place.path(), &[task, &[size]].concat());
            run.objective.evaluate(&run.model, &mut *for_stderr().0).unwrap()
        });
        let [whole, cut @ ..] = found;
        for found in cut {
            assert!((found.loss - whole.loss).abs() < 2e-6 * whole.loss, "{task:?}");
            assert_eq!(found.predictions, whole.predictions, "{task:?}");
            for (name, expected) in &whole.metrics {
                // Ranks of predictions that are nearly equal go by their rounding.
                let limit = if name == "spearman" { 2e-3 } else { 1e-6 };
                let (found, expected) = (found.metrics[name], *expected);
                let near = found.zip(expected).is_some_and(|(a, b)| (a - b).abs() < limit);
                assert!(near || found == expected, "{task:?}, {name}: {found:?}, {expected:?}");
            }
        }
    }
}

/// Run after run through the command: what is reported is the same, too.
#[test]
fn runs_that_differ_in_how_updates_are_cut_report_the_same_losses() {
    let place = place();
    let losses = |name: &str, cut: [&str; 2]| -> Vec<f64> {
        let more = ["task=lines", "model=tiny-llama", "limit=11", "log_every=1", "lr=1e-3"];
        let run_dir = format!("run_dir={name}");
        let output = common::run(place.path(), &[&more[..], &cut, &[&run_dir]].concat());
        assert!(output.status.success(), "{}", common::text(&output.stderr));
        let events = fs::read_to_string(place.path().join(name).join("events.jsonl")).unwrap();
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter_map(|event| event["loss"].as_f64()).collect()
    };
    let whole = losses("whole", ["batch_size=8", "accumulate=1"]);
    assert!(whole.len() > 8, "{whole:?}");
    for (name, cut) in
        [("two", ["batch_size=2", "accumulate=4"]), ("one", ["batch_size=1", "accumulate=8"])]
    {
        for (a, b) in losses(name, cut).iter().zip(&whole) {
            assert!((a - b).abs() < 1e-3 * b, "{name}: {a}, whole {b}");
        }
    }
}

/// All rows in one update: the loss of its tokens and their gradient, in packs and row by row.
#[test]
fn packed_rows_have_the_loss_and_the_gradient_of_rows_by_themselves() {
    let place = place();
    let update = |packing: &str| {
        let more = ["task=lines", "model=tiny-llama", "max_length=64", "method=lora", packing];
        let run = prepared(place.path(), &more);
        let rows = run.objective.training_rows();
        (rows, updates(&run, (rows, 1)).remove(0))
    };
    let (rows, (_, loss, gradient)) = update("task.packing=false");
    let (packs, (_, packed_loss, packed_gradient)) = update("task.packing=true");
    assert!(rows == 11 && packs < 8, "{rows}, {packs}");
    assert!((packed_loss - loss).abs() < 1e-5 * loss, "{packed_loss}, by themselves {loss}");
    let error = far(&packed_gradient, &gradient);
    assert!(error < 1e-4, "{error:e}");
}

/// A task on a machine that has room for so many rows at once.
#[derive(Debug)]
struct Small<'a>(&'a dyn Objective, usize);

impl Objective for Small<'_> {
    fn training_batches(&self, size: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        self.0.training_batches(size, seed, epoch)
    }
    fn longest(&self, n: usize) -> Vec<usize> {
        self.0.longest(n)
    }
    fn batch(&self, rows: &[usize]) -> Examples {
        self.0.batch(rows)
    }
    fn items(&self, rows: &[usize]) -> f64 {
        self.0.items(rows)
    }
    fn loss(&self, model: &AdaptedModel, examples: &Examples) -> anyhow::Result<Loss> {
        if examples.batch.input_ids.size()[0] as usize > self.1 {
            // More than any machine has: tch's operators panic of it.
            drop(Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)));
        }
        self.0.loss(model, examples)
    }
    fn evaluate(&self, model: &AdaptedModel, to: &mut dyn Progress) -> anyhow::Result<Evaluated> {
        self.0.evaluate(model, to)
    }
    fn test(
        &self,
        model: &AdaptedModel,
        to: &mut dyn Progress,
    ) -> anyhow::Result<Option<Evaluated>> {
        self.0.test(model, to)
    }
    fn test_split(&self) -> Option<&str> {
        self.0.test_split()
    }
    fn selection(&self) -> Selection {
        self.0.selection()
    }
    fn rows(&self, split: &str) -> usize {
        self.0.rows(split)
    }
    fn read(&self) -> Box<dyn Iterator<Item = Vec<i64>> + '_> {
        self.0.read()
    }
    fn tokens(&self) -> usize {
        self.0.tokens()
    }
    fn remarks(&self) -> Vec<String> {
        self.0.remarks()
    }
}

#[test]
fn an_update_for_which_the_memory_is_too_small_names_the_pass_that_failed() {
    let place = place();
    let run = prepared(place.path(), &["task=mrpc", "model=minilm"]);
    let mut tuner = run.tuner().unwrap();
    let mut failed = |cut: (usize, usize), room: usize| -> Vec<Option<Pass>> {
        let objective = Small(run.objective.as_ref(), room);
        let updates = Update::epoch(&objective, cut, 7, 0, &World::alone());
        let made = updates.iter().map(|update| {
            let mut graphs = StepGraphs::off(run.device);
            let made = update.forward_backward(&objective, &run.model, &mut tuner, &mut graphs);
            tuner.discard();
            made.err().map(|error| *error.downcast_ref::<Pass>().expect("a pass is named"))
        });
        made.collect()
    };
    let rows = |passes: Vec<Option<Pass>>| -> Vec<Option<usize>> {
        passes.into_iter().map(|pass| pass.map(|pass| pass.rows)).collect()
    };
    // Eleven rows: all of them are fewer than were asked for, and that is what is named.
    assert_eq!(rows(failed((32, 1), 8)), [Some(11)]);
    assert_eq!(rows(failed((8, 2), 8)), [None]);
    // Of an update of three passes, the one that does not fit.
    assert_eq!(rows(failed((4, 3), 3)), [Some(4)]);
    let whole: Vec<_> = failed((11, 1), 1);
    assert!(whole[0].is_some_and(|pass| pass.tokens > 1), "{whole:?}");
}
