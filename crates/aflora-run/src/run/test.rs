//! The split that is judged once, when training is over: by the best adapter, as whoever opens the
//! run's folder gets it.

use super::failure;
use super::folder::RunFolder;
use super::prepare::Prepared;
use super::shared;
use crate::ui::Progress;
use aflora_models::adapter_folder::AdapterFolder;
use aflora_record::event::Event;
use aflora_record::names::{self, ADAPTER};
use aflora_record::summary::Test;
use aflora_record::{Evaluation, Recorder};
use anyhow::Result;
use std::time::Instant;

/// Judges the adapter that `folder` holds, that of the evaluation `best`, on the task's test split;
/// none where the task has none. A process without a folder gets it from the first.
///
/// # Errors
/// The adapter cannot be read, the model fails, or a [signal](crate::interrupt) came meanwhile.
pub fn judge(
    run: Prepared,
    folder: Option<&RunFolder>,
    best: &Evaluation,
    recorder: &mut Recorder,
    progress: &mut dyn Progress,
) -> Result<Option<Test>> {
    let Prepared { model, objective, base, world, .. } = run;
    let Some(split) = objective.test_split() else { return Ok(None) };
    let kept = folder.map(|folder| folder.path().join(ADAPTER));
    let kept = shared::folder(&world, kept.as_deref())?;
    let adapter = AdapterFolder::open(kept.path())?;
    // In the place of the last: the frozen weights are the same.
    let model = adapter.attach(model.into_backbone(), base.kind)?;
    let started = Instant::now();
    let Some(found) = failure::guarded(|| objective.test(&model, progress))? else {
        return Ok(None);
    };
    let evaluation = Evaluation {
        metrics: found.metrics,
        loss: found.loss,
        seconds: started.elapsed().as_secs_f64(),
        ..*best
    };
    if let Some(folder) = folder {
        for (split, lines) in &found.predictions {
            folder.write(&names::predictions(split, &evaluation), lines)?;
        }
    }
    recorder.record(&Event::Test(evaluation.clone()))?;
    progress.end();
    tracing::info!(
        "{split}, with the adapter of {}: loss {:.4}, {}",
        best.when(),
        evaluation.loss,
        evaluation.in_words()
    );
    for doubt in &found.doubts {
        tracing::warn!("no better than a guess: {doubt}");
    }
    Ok(Some(Test { split: split.to_string(), evaluation, by_class: found.by_class }))
}
