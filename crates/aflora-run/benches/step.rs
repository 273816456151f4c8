//! One training step of a whole model: what `bench/peft_step.py` measures of Hugging Face PEFT.
//!
//!     cargo bench -p aflora-run --bench step -- CONFIG.json BACKBONE METHOD BATCH LENGTH [KEY=VALUE …]
//!
//!     device=auto|cpu|cuda:N  precision=auto|fp32|tf32|bf16|nf4|nf4_nested|int8|int8_dynamic|fp8  steps=30  threads=N
//!     graphs=on|off           record steps as CUDA graphs
//!     modules=REGEX           adapted layers; all linear layers of a block if not given
//!     shard=on                the frozen weights of blocks are spread over the processes
//!     tiled=LENGTH            encoders' attention by tiles for texts of so many tokens and more
//!     padded=on               rows of a quarter of LENGTH and more, in equal steps, the rest padding
//!     documents=N             rows of so many documents, each of which sees itself alone
//!     total=STEPS             of the run that these steps begin, over which matrices freeze: 100000
//!     ahead=on                the host need not wait for a step to end, as in training: the mean alone is measured
//!     every=STEPS             with it, the mean of each so many steps, behind which the host does wait, and what trains then
//!     profile=FILE            three further steps, as a trace for chrome://tracing and bench/kernel_times.py
//!
//! METHOD may carry a rank, `lora:32`; `aflora-gsm8k` is AFLoRA with all matrices trained,
//! `aflora-frozen` with none, `aflora-never` without scores and freezing,
//! `aflora-tests` with a freeze test at every tenth step, as after the initial span. BACKBONE may be a kind
//! that classifies or one that writes: then the loss is on every token (of an encoder-decoder: on a target of a
//! quarter of LENGTH). With `+checkpointing` behind BACKBONE, blocks are checkpointed.
//!
//! Under torchrun, srun or with torchrun's variables it is one of several processes: BATCH is each one's, and the
//! first prints.
//!
//! Random weights and tokens, the model's own dropout on; a step is forward, loss, backward, clipping,
//! scores and update. Prints one line of JSON: the median of the steps after ten for warming up, the time from the
//! program's start to the end of the first step, and the peak of memory.

mod common;

use aflora_core::{Loss, MapTensors, StepGraphs, Tuner, TunerConfig};
use aflora_cuda::World;
use aflora_models::{build, check_kind, AdaptedModel, Backbone, Batch, Documents, Forward, Head};
use aflora_models::{Options, Pattern, Targets};
use aflora_run::config::Precision;
use aflora_run::device::{peak_memory, start, synchronize, tensors};
use aflora_run::precision;
use aflora_run::task::Examples;
use clap::ValueEnum;
use common::{count, initialise, method, Given};
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Reduction, Tensor};

const WARM_UP: usize = 10;

/// What every step learns from.
struct Work(Examples);

impl Work {
    /// Rows of `documents` documents each, if it is not one; with padding, if they are `padded`.
    fn new(
        model: &dyn Backbone,
        [rows, length, documents]: [i64; 3],
        padded: bool,
        device: Device,
    ) -> Work {
        let whole = (Kind::Int64, device);
        let tokens = |n| Tensor::randint(model.vocab_size().min(30_000), [rows, n], whole);
        let ids = tokens(length);
        let mask = ids.ones_like();
        for row in 0..if padded { rows } else { 0 } {
            let own = length / 4 + (length - length / 4) * row / (rows - 1).max(1);
            let _ = mask.get(row).narrow(0, own, length - own).fill_(0);
        }
        let batch = Batch::new(ids.shallow_clone(), mask);
        let documents = (documents > 1).then(|| {
            let places = Tensor::arange(length, whole) * documents;
            let of_tokens =
                places.divide_scalar_mode(length, "floor").expand([rows, length], false);
            Documents::new(of_tokens.contiguous())
        });
        let batch = Batch { documents, ..batch };
        Work(match model.text_generator().map(|generator| generator.tokens().decoder_start) {
            None => Examples { batch, labels: Tensor::arange(rows, whole).remainder(2) },
            Some(None) => Examples { batch, labels: ids.roll([-1], [1]) },
            Some(Some(_)) => {
                let target = tokens(length / 4);
                let read = Some(target.roll([1], [1]));
                Examples { batch: Batch { decoder_input_ids: read, ..batch }, labels: target }
            }
        })
    }

    /// One forward and backward pass and update.
    fn step(
        &self,
        model: &AdaptedModel,
        tuner: &mut Tuner,
        graphs: &mut StepGraphs,
        ranks: usize,
    ) -> anyhow::Result<()> {
        let items = (self.0.labels.numel() * ranks) as f64;
        let examples = self.0.map_tensors(&mut Tensor::shallow_clone);
        tuner.forward_backward(
            [examples],
            items,
            graphs,
            |Examples { batch, labels }| -> anyhow::Result<_> {
                if model.backbone().text_generator().is_some() {
                    let tokens = model.next_tokens(batch, true)?;
                    let value = tokens.loss(labels, 0.0)?;
                    return Ok(Loss { value, checkpoints: tokens.checkpoints });
                }
                let Forward { logits, checkpoints } = model.forward(batch, true)?;
                let (none, sum) = (None::<&Tensor>, Reduction::Sum);
                let value = logits.cross_entropy_loss(labels, none, sum, -100, 0.0);
                Ok(Loss { value, checkpoints })
            },
        )?;
        tuner.update()?;
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    aflora_cuda::count_host_memory();
    let known = [
        "device",
        "precision",
        "steps",
        "threads",
        "graphs",
        "modules",
        "profile",
        "tiled",
        "padded",
        "documents",
        "shard",
        "ahead",
        "every",
        "total",
    ];
    let given = Given::new(5, &known)?;
    let [config, kind, name, batch, length] = &given.words[..] else {
        println!("nothing measured: CONFIG.json BACKBONE METHOD BATCH LENGTH are needed");
        return Ok(());
    };
    let option = |key| given.option(key);
    if let Some(threads) = given.count("threads")? {
        tch::set_num_threads(threads);
    }
    if let Some(length) = given.count("tiled")? {
        aflora_core::kernels::tile_from(length);
    }
    let world = aflora_run::launch::join()?;
    let device = start(option("device").unwrap_or("auto").parse()?, &world)?;
    if let Device::Cuda(index) = device {
        world.use_gpu(index)?;
    }
    let asked = option("precision").unwrap_or("auto");
    let precision = Precision::from_str(asked, false).map_err(anyhow::Error::msg)?;
    let base = precision::choose(precision, device, || Ok(f64::INFINITY))?;
    let steps = given.count("steps")?.unwrap_or(30);
    let (padded, ahead) = (given.is_on("padded")?, given.is_on("ahead")?);
    let every = given.count::<usize>("every")?;
    anyhow::ensure!(
        every.is_none() || ahead,
        "every= is for ahead=on: else each step has its time"
    );
    let documents: i64 = given.count("documents")?.unwrap_or(1);
    anyhow::ensure!(!padded || documents == 1, "rows of documents have no padding");
    let total = given.count("total")?.unwrap_or(100_000);
    let (batch, length): (i64, i64) = (count("BATCH", batch)?, count("LENGTH", length)?);

    tch::manual_seed(1);
    let (kind, checkpointing) = match kind.split_once('+') {
        Some((kind, "checkpointing")) => (kind, true),
        _ => (kind.as_str(), false),
    };
    let config = Path::new(config);
    let head = match check_kind(kind, Head::Language) {
        Ok(()) => Head::Language,
        Err(_) => Head::Classes(2),
    };
    let spread = given.is_on("shard")?;
    let shards = if spread { world.clone() } else { World::alone() };
    let options = Options {
        base: base.kind,
        format: base.format,
        checkpointing,
        shards,
        ..Options::new(device)
    };
    let backbone = build(kind, config, head, &options)?;
    initialise(backbone.as_ref())?;
    let modules = option("modules").unwrap_or(common::modules(kind));
    let target_modules = Pattern::Regex(modules.into());
    // The weights are the same for all, tokens and dropout are not.
    tch::manual_seed(1 + world.rank() as i64);
    let work = Work::new(backbone.as_ref(), [batch, length, documents], padded, device);
    let targets = Targets { target_modules, ..Default::default() };
    let method = method(name)?.build()?;
    let model = AdaptedModel::new(backbone, method.as_ref(), &targets, &[], base.kind, 1)?;
    let config = TunerConfig { lr: 1e-4, head_lr: 1e-4, ..Default::default() };
    let mut tuner = Tuner::new(config, method.as_ref(), model.parameters(), 1000, total)?;
    tuner.join(world.clone());

    aflora_cuda::awake();
    let mut graphs = match option("graphs") {
        Some("off") => StepGraphs::off(device),
        // Blocks are gathered on the host's word.
        _ if spread => StepGraphs::off(device),
        _ => StepGraphs::new(device),
    };
    let (mut milliseconds, mut means) = (Vec::new(), Vec::new());
    let (mut first, mut measured_from) = (0.0, Instant::now());
    let mut mean_from = measured_from;
    for step in 0..WARM_UP + steps {
        if step == WARM_UP {
            synchronize(device);
            measured_from = Instant::now();
            mean_from = measured_from;
        }
        let begun = Instant::now();
        work.step(&model, &mut tuner, &mut graphs, world.size())?;
        if step < WARM_UP || !ahead {
            synchronize(device);
        }
        milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
        if step == 0 {
            first = started.elapsed().as_secs_f64();
        }
        let done = (step + 1).saturating_sub(WARM_UP);
        if let Some(every) = every.filter(|every| done > 0 && done % every == 0) {
            synchronize(device);
            let ms = mean_from.elapsed().as_secs_f64() * 1e3 / every as f64;
            means.push(
                serde_json::json!({ "steps": done, "ms": ms, "trainable": tuner.trainable() }),
            );
            mean_from = Instant::now();
        }
    }
    synchronize(device);
    let mean = measured_from.elapsed().as_secs_f64() * 1e3 / steps as f64;
    if let Some(path) = option("profile") {
        aflora_cuda::profile(Path::new(path), || -> anyhow::Result<()> {
            (0..3).try_for_each(|_| work.step(&model, &mut tuner, &mut graphs, world.size()))
        })??;
    }
    if let Some(reason) = graphs.remark() {
        eprintln!("not recorded: {reason}");
    }
    let peak_tensors = tensors(device).map(|memory| memory.peak_allocated);
    tuner.check_equal()?;
    world.leave()?;
    if !world.leads() {
        return Ok(());
    }
    let mut measured = milliseconds.split_off(WARM_UP);
    measured.sort_by(f64::total_cmp);
    let mut line = serde_json::json!({
        "side": "aflora", "model": kind, "method": name,
        "mode": if checkpointing { "checkpointing" } else if graphs.is_empty() { "eager" } else { "graphs" }, "precision": match asked {
            "tf32" => "TF32".into(),
            asked if base.format.is_some() => asked.into(),
            _ => format!("{:?}", base.kind),
        },
        "ranks": world.size(), "shard": option("shard"), "tiled_from": option("tiled"), "padded": padded, "documents": documents, "total": total, "batch": batch, "length": length, "steps": steps,
        "mean_ms": mean,
        "first_step_s": first, "peak_memory": peak_memory(device), "peak_tensors": peak_tensors,
        "trainable": tuner.trainable(), "modules": model.adapters().count(),
    });
    if !ahead {
        line["ms"] = measured[steps / 2].into();
    }
    if every.is_some() {
        line["every"] = means.into();
    }
    println!("{line}");
    Ok(())
}
