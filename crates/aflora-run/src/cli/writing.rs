//! What `generate` and `chat` have in common: how texts are written, and a model that is ready to.

use super::saved::Saved;
use aflora_models::generate::GenerationSettings;
use aflora_models::{AdaptedModel, ChatTemplate};
use aflora_run::config::{DeviceChoice, Precision};
use aflora_run::run::objective::texts::TextPairs;
use aflora_run::saved::SavedRun;
use aflora_run::ui::Progress;
use aflora_run::UsageError;
use anyhow::{Context, Result};
use clap::Args;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

/// How texts are written, and where that is computed.
#[derive(Args)]
pub struct Writing {
    /// The most tokens of a text.
    #[arg(long, value_name = "N", help_heading = WRITING)]
    max_new_tokens: Option<usize>,
    /// Take the likeliest token each time, whatever the run's task says.
    #[arg(long, help_heading = WRITING, conflicts_with_all = ["sample", "beams"])]
    greedy: bool,
    /// Texts that compete for the best (beam search).
    #[arg(long, value_name = "N", help_heading = WRITING, conflicts_with = "sample")]
    beams: Option<usize>,
    /// Draw tokens by their probability; each of the next five asks for it, too.
    #[arg(long, help_heading = WRITING)]
    sample: bool,
    /// Below 1 favours likely tokens, above 1 unlikely ones.
    #[arg(long, value_name = "X", help_heading = WRITING)]
    temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens; 0: from all.
    #[arg(long, value_name = "N", help_heading = WRITING)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", help_heading = WRITING)]
    top_p: Option<f64>,
    /// Draw from tokens that have this share of the likeliest one's probability.
    #[arg(long, value_name = "P", help_heading = WRITING)]
    min_p: Option<f64>,
    /// Decides what is drawn.
    #[arg(long, value_name = "N", help_heading = WRITING)]
    seed: Option<u64>,
    /// Above 1 makes tokens rarer that were there before.
    #[arg(long, value_name = "X", help_heading = WRITING)]
    repetition_penalty: Option<f64>,
    /// Let runs of so many tokens come once at most.
    #[arg(long, value_name = "N", help_heading = WRITING)]
    no_repeat_ngram: Option<usize>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Of the frozen weights: auto (as the run trained), fp32, tf32, bf16.
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    precision: Precision,
}

/// Over the options for writing in `--help`.
const WRITING: &str = "How texts are written (by default as the run's task and model say)";

/// A finished run whose model is ready to write.
pub struct Writer {
    /// The model with its adapter.
    pub model: AdaptedModel,
    /// What makes tokens of prompts, and texts of tokens.
    pub texts: TextPairs,
}

impl Writing {
    /// What is asked for.
    ///
    /// # Errors
    /// A value is out of its range.
    fn settings(&self) -> Result<GenerationSettings> {
        let drawn = self.sample
            || self.seed.is_some()
            || self.top_k.is_some()
            || [self.temperature, self.top_p, self.min_p].iter().any(Option::is_some);
        if drawn && (self.greedy || self.beams.is_some_and(|beams| beams > 1)) {
            let problem =
                "tokens are drawn, searched for with beams, or taken greedily: ask for one";
            return Err(UsageError(problem.into()).into());
        }
        let one_way = drawn || self.greedy;
        let settings = GenerationSettings {
            max_new_tokens: self.max_new_tokens,
            num_beams: if one_way { Some(1) } else { self.beams },
            no_repeat_ngram_size: self.no_repeat_ngram,
            repetition_penalty: self.repetition_penalty,
            do_sample: (one_way || self.beams.is_some()).then_some(drawn),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            ..GenerationSettings::default()
        };
        settings.validate().map_err(|error| UsageError(error.to_string()))?;
        Ok(settings)
    }

    /// Opens the run, and loads its model.
    ///
    /// # Errors
    /// An option is out of its range, or the run cannot be opened or writes no text.
    pub fn open(&self, saved: &Saved, progress: &mut dyn Progress) -> Result<Writer> {
        self.ready(&self.settings()?, &saved.open(progress)?)
    }

    /// [`open`](Self::open) of a run whose model's files say how it wants conversations written.
    ///
    /// # Errors
    /// As there; or they do not say it.
    pub fn open_to_chat(
        &self,
        saved: &Saved,
        progress: &mut dyn Progress,
    ) -> Result<(Writer, Arc<ChatTemplate>)> {
        let settings = self.settings()?;
        let run = saved.open(progress)?;
        run.check_that_it_writes()?;
        let own = run.chat_template()?.map(Arc::new);
        let writer = self.ready(&settings, &run)?;
        let template = writer.texts.chat_template().cloned().or(own);
        Ok((writer, template.context("a task of conversations has a template")?))
    }

    fn ready(&self, settings: &GenerationSettings, run: &SavedRun) -> Result<Writer> {
        run.check_that_it_writes()?;
        let (device, base) = run.device_and_precision(self.device, self.precision)?;
        let model = run.model(device, base)?;
        let texts = run.texts(&model, device, settings)?;
        Ok(Writer { model, texts })
    }
}

/// Standard output that shows text as it comes.
pub struct Screen {
    terminal: bool,
}

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        Screen { terminal: io::stdout().is_terminal() }
    }

    /// Whether somebody looks at it and types, so that prompts are of use.
    pub fn is_for_people(&self) -> bool {
        self.terminal && io::stdin().is_terminal()
    }

    /// Shows a piece of text at once. What a model writes cannot steer a terminal.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn show(&self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut output = io::stdout().lock();
        match self.terminal {
            true => output.write_all(aflora_files::printable(text).as_bytes())?,
            false => output.write_all(text.as_bytes())?,
        }
        output.flush()
    }
}
