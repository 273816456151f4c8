//! Writing text with a whole model: what `bench/peft_generate.py` measures of Hugging Face transformers.
//!
//!     cargo bench -p aflora-run --bench generate -- CONFIG.json BACKBONE METHOD TEXTS PROMPT NEW [KEY=VALUE …]
//!
//!     device=auto|cpu|cuda:N  precision=auto|fp32|tf32|bf16  rounds=3  threads=N
//!     slots=N                 texts that are written at once; all if not given
//!     graphs=on|off           record steps as CUDA graphs
//!     in_step=on              texts batch after batch, in step, as encoder-decoders and beams are written
//!     end=N                   ends texts at the first of the N lowest token ids: at different lengths
//!     sample=on               draw tokens, in place of taking the likeliest
//!     profile=FILE            one further round, as a trace for chrome://tracing
//!
//! METHOD is `none` or an adapter as the bench `step` has it, `lora:32`, which is not merged. Random weights and
//! prompts of PROMPT tokens; nothing ends a text, so every one has NEW tokens. Prints one line of JSON: tokens a
//! second and seconds of the median round after one for warming up, with the reading of the prompts in it; the
//! time of that first round, in which steps are recorded; and the peak of memory.

mod common;

use aflora_models::generate::{write_each, ContinuousWriter, DecodingState, GenerationConfig};
use aflora_models::generate::{Pace, SpecialTokens, TextGenerator, Written};
use aflora_models::{build, AdaptedModel, Batch, Head, Options, Pattern, Targets};
use aflora_run::config::Precision;
use aflora_run::device::{peak_memory, start, synchronize, tensors};
use aflora_run::precision;
use anyhow::{Context, Result};
use clap::ValueEnum;
use common::{count, initialise, method, Given};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// A model without slots.
struct InStep<'a>(&'a dyn TextGenerator);

impl TextGenerator for InStep<'_> {
    fn tokens(&self) -> &SpecialTokens {
        self.0.tokens()
    }

    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> aflora_models::Result<(Tensor, Box<dyn DecodingState + 'a>)> {
        self.0.start(batch, room)
    }
}

/// What writes.
enum Side<'a> {
    Continuous(Box<ContinuousWriter<'a>>),
    /// So many at once.
    InStep(InStep<'a>, usize),
}

impl Side<'_> {
    /// Makes one round: every prompt with what is written behind it; gives the tokens that were wanted, and
    /// the seconds.
    fn round(
        &mut self,
        prompts: &[&[i64]],
        config: &GenerationConfig,
        device: Device,
    ) -> Result<(usize, f64)> {
        let numbers: Vec<u64> = (0..prompts.len() as u64).collect();
        let (begun, mut tokens) = (Instant::now(), 0);
        match self {
            Side::Continuous(writer) => writer.write(prompts, &numbers, &mut |written| {
                if let Written::Text(_, ids) = written {
                    tokens += ids.len();
                }
                ControlFlow::Continue(())
            })?,
            Side::InStep(generator, slots) => {
                for (prompts, numbers) in prompts.chunks(*slots).zip(numbers.chunks(*slots)) {
                    let ids = Tensor::from_slice(&prompts.concat()).to_device(device);
                    let ids = ids.view([prompts.len() as i64, -1]);
                    let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
                    let mut go_on = |_, _| ControlFlow::Continue(());
                    let texts = write_each(generator, &batch, config, numbers, &mut go_on)?;
                    tokens += texts.iter().map(Vec::len).sum::<usize>();
                }
            }
        }
        synchronize(device);
        Ok((tokens, begun.elapsed().as_secs_f64()))
    }
}

fn main() -> Result<()> {
    aflora_cuda::count_host_memory();
    let known = [
        "device",
        "precision",
        "rounds",
        "threads",
        "slots",
        "graphs",
        "in_step",
        "end",
        "sample",
        "profile",
    ];
    let given = Given::new(6, &known)?;
    let [shape, kind, name, texts, prompt, new] = &given.words[..] else {
        println!("nothing measured: CONFIG.json BACKBONE METHOD TEXTS PROMPT NEW are needed");
        return Ok(());
    };
    let option = |key| given.option(key);
    if let Some(threads) = given.count("threads")? {
        tch::set_num_threads(threads);
    }
    let device = start(option("device").unwrap_or("auto").parse()?, &Default::default())?;
    let asked = option("precision").unwrap_or("auto");
    let precision = Precision::from_str(asked, false).map_err(anyhow::Error::msg)?;
    let base = precision::choose(precision, device, || Ok(f64::INFINITY))?;
    let rounds: usize = given.count("rounds")?.unwrap_or(3);
    let (texts, new): (usize, usize) = (count("TEXTS", texts)?, count("NEW", new)?);
    let prompt: i64 = count("PROMPT", prompt)?;

    // Without an end token, which random weights would draw by chance.
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.json");
    let keys = std::fs::read(shape).with_context(|| shape.clone())?;
    let mut keys: serde_json::Value = serde_json::from_slice(&keys)?;
    keys["eos_token_id"] = serde_json::Value::Null;
    std::fs::write(&config, keys.to_string())?;

    tch::manual_seed(1);
    let options = Options { base: base.kind, format: base.format, ..Options::new(device) };
    let backbone = build(kind, Path::new(&config), Head::Language, &options)?;
    initialise(backbone.as_ref())?;
    aflora_cuda::awake();
    let whole = (Kind::Int64, Device::Cpu);
    let ids = Tensor::randint(backbone.vocab_size().min(30_000), [texts as i64, prompt], whole);
    let prompts = Vec::<Vec<i64>>::try_from(ids)?;
    let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
    let model;
    let generator = match name.as_str() {
        "none" => backbone.text_generator(),
        name => {
            let target_modules = Pattern::Regex(common::modules(kind).into());
            let targets = Targets { target_modules, ..Default::default() };
            let method = method(name)?.build()?;
            model = AdaptedModel::new(backbone, method.as_ref(), &targets, &[], base.kind, 1)?;
            Some(model.writer()?)
        }
    };
    let generator = generator.context("the model does not write")?;

    let do_sample = given.is_on("sample")?;
    let further_eos = (0..given.count("end")?.unwrap_or(0)).collect();
    let generation =
        GenerationConfig { max_new_tokens: new, do_sample, further_eos, ..Default::default() };
    let slots = given.count("slots")?.unwrap_or(texts);
    let pace = Pace::of(device, slots);
    let pace = Pace { record: pace.record && option("graphs") != Some("off"), ..pace };
    let mut side = match option("in_step") {
        Some("on") => Side::InStep(InStep(generator), slots),
        _ => {
            let writer = ContinuousWriter::new(generator, &generation, pace, prompt)?;
            Side::Continuous(Box::new(writer.context("the model has no slots")?))
        }
    };
    let mut round = || side.round(&prompts, &generation, device);
    let (_, first) = round()?;
    let mut measured = Vec::new();
    let mut tokens = 0;
    for _ in 0..rounds {
        let (written, seconds) = round()?;
        (tokens, measured) = (written, [measured, vec![seconds]].concat());
    }
    if let Some(path) = option("profile") {
        aflora_cuda::profile(Path::new(path), &mut round)??;
    }
    let (mode, recordings) = match &side {
        Side::InStep(..) => ("in step", 0),
        Side::Continuous(writer) => match writer.recordings() {
            0 => ("eager", 0),
            recordings => ("graphs", recordings),
        },
    };
    measured.sort_by(f64::total_cmp);
    let seconds = measured[rounds / 2];
    println!(
        "{}",
        serde_json::json!({
            "side": "aflora", "model": kind, "method": name,
            "mode": mode,
            "precision": if base.format.is_some() || asked == "tf32" { asked.into() } else { format!("{:?}", base.kind) },
            "texts": texts, "slots": slots, "prompt": prompt, "new": new, "sample": do_sample,
            "tokens_per_s": tokens as f64 / seconds, "s": seconds, "rounds_s": measured, "first_round_s": first,
            "ms_a_token": 1e3 * seconds * slots as f64 / tokens as f64,
            "recordings": recordings, "tokens": tokens, "peak_memory": peak_memory(device),
            "peak_tensors": tensors(device).map(|memory| memory.peak_allocated),
        })
    );
    Ok(())
}
