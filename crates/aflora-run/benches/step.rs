//! One training step of a whole model: what `bench/step.sh` puts beside Hugging Face PEFT's.
//!
//!     cargo bench -p aflora-run --bench step -- CONFIG.json BACKBONE METHOD BATCH LENGTH [DEVICE] [PRECISION] [STEPS]
//!
//! Random weights and tokens, no padding, the model's own dropout on; a step is forward, loss, backward, clipping,
//! scores and update. Prints one line of JSON: the median of the steps after ten for warming up, the time from the
//! program's start to the end of the first step, and the peak of memory.

use aflora_core::adapter::{AfloraConfig, MethodConfig};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::{Tuner, TunerConfig};
use aflora_models::{build, weights, AdaptedModel, Batch, Pattern, Targets};
use aflora_run::device::{base_kind, choose, peak_memory, synchronize};
use std::path::Path;
use std::time::Instant;
use tch::{Kind, Tensor};

const WARM_UP: usize = 10;

fn method(name: &str) -> anyhow::Result<MethodConfig> {
    let aflora = |mode| {
        let freeze = FreezeConfig { mode, ..Default::default() };
        MethodConfig::Aflora(AfloraConfig { freeze, ..Default::default() })
    };
    Ok(match name {
        "aflora" => aflora(FreezeMode::Adaptive),
        "aflora-frozen" => aflora(FreezeMode::Start),
        other => MethodConfig::defaults(other)
            .ok_or_else(|| anyhow::anyhow!("there is no method `{other}`"))?,
    })
}

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    // Cargo itself passes `--bench`.
    let given: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [config, kind, name, batch, length, rest @ ..] = &given[..] else {
        println!("nothing measured: CONFIG.json BACKBONE METHOD BATCH LENGTH are needed");
        return Ok(());
    };
    let optional = |i: usize, default: &str| rest.get(i).cloned().unwrap_or(default.to_string());
    let device = choose(&optional(0, "auto"))?;
    let precision = optional(1, "auto");
    let base = base_kind(&precision, device)?;
    let steps: usize = optional(2, "30").parse()?;
    let (batch, length): (i64, i64) = (batch.parse()?, length.parse()?);

    tch::manual_seed(1);
    let backbone = build(kind, Path::new(config), 2, device)?;
    weights::initialise_all(backbone.as_ref(), 1);
    let vocabulary = backbone.vocab_size();
    // All six linear layers of a block, however the model names them.
    let target_modules = Pattern::Regex(".*".into());
    let targets = Targets { target_modules, ..Default::default() };
    let method = method(name)?.build()?;
    let model = AdaptedModel::new(backbone, method.as_ref(), &targets, &[], base, 1)?;
    let config = TunerConfig { lr: 1e-4, head_lr: 1e-4, ..Default::default() };
    let mut tuner = Tuner::new(config, method.as_ref(), model.parameters(), 1000, 100_000)?;

    let whole = (Kind::Int64, device);
    let ids = Tensor::randint(vocabulary.min(30_000), [batch, length], whole);
    let input = Batch::new(ids, Tensor::ones([batch, length], whole));
    let labels = Tensor::arange(batch, whole).remainder(2);
    let mut milliseconds = Vec::new();
    let mut first = 0.0;
    for step in 0..WARM_UP + steps {
        let begun = Instant::now();
        let loss = model.forward(&input, true)?.cross_entropy_for_logits(&labels);
        tuner.step(&loss)?;
        synchronize(device);
        milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
        if step == 0 {
            first = started.elapsed().as_secs_f64();
        }
    }
    let mut measured = milliseconds.split_off(WARM_UP);
    measured.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "side": "aflora", "method": name, "mode": "eager", "precision": format!("{base:?}"),
            "batch": batch, "length": length, "steps": steps, "ms": measured[steps / 2],
            "first_step_s": first, "peak_memory": peak_memory(device),
            "trainable": tuner.trainable(),
        })
    );
    Ok(())
}
