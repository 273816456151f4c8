//! What any rule, score or schedule would have frozen when, from the gradients that one run
//! recorded; nothing is trained.
//!
//! The controller is the one of training, fed with recorded gradients. What it cannot know is how
//! the run would have gone on after a freeze: a matrix that stands still changes the gradients of
//! all others a little. So a run is recorded with matrices that never freeze, and the answer is
//! what the rule says of that run.

use crate::config;
use crate::ui::{thousands, words};
use crate::usage;
use aflora_core::adapter::Role;
use aflora_core::freeze::{FreezeConfig, FreezeController, FreezeMode, Rule, Score};
use aflora_core::optim::{Arena, Parameter};
use aflora_core::Hook;
use aflora_record::freezes::{self, Matrix};
use aflora_record::gradients::GradientReader;
use aflora_record::names::{CONFIG, GRADIENTS};
use aflora_record::Error;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// When each matrix would have frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// The settings.
    pub freeze: FreezeConfig,
    /// Every matrix.
    pub matrices: Vec<Matrix>,
    /// Steps that were recorded.
    pub steps: u64,
    /// Elements of matrices that train, added up over the steps.
    trained: i64,
}

impl Replayed {
    /// Elements of matrices that train, averaged over the steps.
    pub fn time_average(&self) -> f64 {
        self.trained as f64 / self.steps.max(1) as f64
    }

    /// The steps at which matrices froze, in order.
    fn frozen(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self.matrices.iter().filter_map(|m| m.frozen_at).collect();
        steps.sort_unstable();
        steps
    }

    /// As `freeze.csv` has it; a record of gradients does not know the blocks.
    pub fn csv(&self) -> String {
        freezes::to_csv(&self.matrices)
    }
}

/// Plays the run in `run` to the controller of `freeze`.
///
/// # Errors
/// The run recorded nothing, froze matrices itself, or no run is long enough for the schedule.
pub fn replay(run: &Path, freeze: &FreezeConfig) -> Result<Replayed> {
    let mut log = match GradientReader::open(run) {
        Err(error) if error.is_missing() => usage!(
            "{} is not there; record it with record_gradients=true, on a run whose matrices never \
             freeze (method=aflora-trainable, or lora)",
            run.join(GRADIENTS).display()
        ),
        Err(error @ Error::Read { .. }) => usage!("{}", words(&error.into())),
        opened => opened?,
    };
    refuse_frozen(run)?;
    let header = log.header().clone();
    let leaf = |[rows, columns]: [i64; 2]| {
        Tensor::zeros([rows, columns], (Kind::Float, Device::Cpu)).set_requires_grad(true)
    };
    let parameters = header
        .matrices
        .iter()
        .map(|(name, shape)| Parameter::of_model(name, Role::Projection, leaf(*shape)));
    let mut arena = Arena::new(parameters.collect())?;
    let mut gradients = arena.buffer();
    let (per_epoch, total) = (header.steps_per_epoch, header.total_steps);
    let mut controller = FreezeController::new(freeze, header.matrices.len(), per_epoch, total)?;
    let matrices = header.matrices.iter().map(|(name, [rows, columns])| Matrix {
        name: name.clone(),
        block: String::new(),
        elements: rows * columns,
        frozen_at: None,
    });
    let (matrices, freeze) = (matrices.collect(), freeze.clone());
    let mut found = Replayed { freeze, matrices, steps: 0, trained: 0 };
    while let Some(numbers) = log.step()? {
        let [gradient, values] = numbers.map(|numbers| Tensor::from_slice(&numbers));
        let (Some(group), Some(place)) =
            (arena.group_mut(Role::Projection), gradients.get(Role::Projection))
        else {
            break;
        };
        tch::no_grad(|| {
            group.values().shallow_clone().copy_(&values);
            place.shallow_clone().copy_(&gradient);
        });
        controller.score(found.steps, &mut arena, &gradients)?;
        if let Some(check) = controller.freeze(found.steps, &mut arena, &mut gradients)? {
            let frozen = check.frozen().map(|name| (name, Some(found.steps)));
            let thawed = check.thawed.iter().map(|name| (name.as_str(), None));
            for (name, at) in frozen.chain(thawed) {
                if let Some(matrix) = found.matrices.iter_mut().find(|m| m.name == name) {
                    matrix.frozen_at = at;
                }
            }
        }
        controller.after_update(found.steps, &mut arena, &gradients)?;
        found.trained += arena.trainable(false);
        found.steps += 1;
    }
    Ok(found)
}

/// A matrix that froze in the run has no gradients from then on.
fn refuse_frozen(run: &Path) -> Result<()> {
    let resolved = config::load(&run.join(CONFIG), &[])?;
    let freezing = resolved.method.settings().freezing();
    if freezing.is_some_and(|freeze| freeze.mode != FreezeMode::Never) {
        usage!(
            "{}: its matrices froze, and what did has no gradients from then on; record a run \
             with method=aflora-trainable, or with lora",
            run.display()
        );
    }
    Ok(())
}

/// Settings of freezing from `key=value` on top of the defaults.
///
/// # Errors
/// A key or value is none.
pub fn settings(overrides: &[String]) -> Result<FreezeConfig> {
    let mut all = serde_json::to_value(FreezeConfig::default())?;
    for typed in overrides {
        let known = all.as_object().map(|keys| keys.keys().cloned().collect::<Vec<_>>());
        let known = known.unwrap_or_default().join(", ");
        let Some((key, value)) = typed.split_once('=') else {
            usage!("`{typed}` sets nothing; write key=value with one of: {known}");
        };
        let key = key.trim().trim_start_matches("method.").trim_start_matches("freeze.");
        let Some(place) = all.get_mut(key) else {
            usage!("there is no setting `{key}` of freezing; known: {known}");
        };
        *place = serde_saphyr::from_str::<Value>(value).unwrap_or_else(|_| value.into());
    }
    let config = match serde_json::from_value::<FreezeConfig>(all) {
        Ok(config) => config,
        Err(error) => usage!("{error}"),
    };
    config.validate()?;
    Ok(config)
}

/// Every rule with every score, side by side.
///
/// # Errors
/// As [`replay`].
pub fn compare(run: &Path, base: &FreezeConfig) -> Result<String> {
    let mut table = format!(
        "{:<18}{:<20}{:>8}{:>8}{:>8}{:>8}{:>16}\n",
        "rule", "score", "first", "median", "last", "frozen", "train, average"
    );
    for rule in Rule::ALL {
        let scores = [Score::Gradient, Score::ParameterGradient, Score::RelativeGradient];
        for score in scores.into_iter().filter(|s| rule.has_score() || *s == Score::default()) {
            let found = replay(run, &FreezeConfig { rule, score, ..base.clone() })?;
            let steps = found.frozen();
            let at = |i: usize| steps.get(i).map_or("–".to_string(), u64::to_string);
            table += &format!(
                "{:<18}{:<20}{:>8}{:>8}{:>8}{:>8}{:>16}\n",
                rule.name(),
                if rule.has_score() { score.name() } else { "" },
                at(0),
                at(steps.len() / 2),
                at(steps.len().saturating_sub(1)),
                format!("{}/{}", steps.len(), found.matrices.len()),
                thousands(found.time_average().round() as i64),
            );
        }
    }
    Ok(table)
}
