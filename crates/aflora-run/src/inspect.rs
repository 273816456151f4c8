//! What a configuration would train, and on what: matched layers, shapes, counts against closed
//! formulas; `rows`: the data; `memory`: what a step takes.

mod memory;
mod rows;

pub use memory::memory;

use crate::config::Resolved;
use crate::run::model::build_shapes;
use crate::run::model_files::{self, locator};
use crate::ui::{thousands, Progress};
use aflora_core::adapter::Role;
use aflora_core::flops::Flops;
use aflora_core::Method;
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::AdaptedModel;
use anyhow::{ensure, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use tch::Kind;

/// What was found.
#[derive(Debug)]
pub struct Inspected {
    /// A description of what would train, and of the rows where they are at hand.
    pub words: String,
    /// Whether the rows can be learned from, as far as they are there.
    pub rows: Result<()>,
}

/// Describes what would train, from the model's config alone, and the rows where they are at hand.
///
/// # Errors
/// The model's config.json is nowhere, the targets match nothing, or a count differs from its
/// formula.
pub fn inspect(resolved: &Resolved, progress: &mut dyn Progress) -> Result<Inspected> {
    aflora_models::check_kind(&resolved.model.backbone, resolved.task.head())?;
    let files = model_files::find(resolved, &locator(resolved), None, false, progress)?;
    let method = resolved.method.build()?;
    // Only shapes count: a model larger than the memory can be looked at.
    let backbone = build_shapes(resolved, &files)?;
    let mut of_rows = String::new();
    let rows = rows::describe(&mut of_rows, resolved, &files, backbone.as_ref(), progress);
    let layers = backbone.linears().len();
    let (targets, modules) = (resolved.model.targets(), &resolved.model.train_modules);
    let seed = resolved.run.seed;
    let model = aflora_models::shapes_only(|| {
        AdaptedModel::new(backbone, method.as_ref(), &targets, modules, Kind::Float, seed)
    })?;

    let mut out = format!("{}\nshapes of {}\n", resolved.name(), files.config.display());
    if method.adapts() {
        layer_table(&mut out, &model, method.as_ref(), layers)?;
    }
    counts(&mut out, &model, method.as_ref())?;
    if method.adapts() {
        operations(&mut out, &model, method.freezes())?;
    }
    out.push_str(&of_rows);
    Ok(Inspected { words: out, rows })
}

/// What the adapter in `folder` is, ours or PEFT's.
///
/// # Errors
/// It is damaged, or of a kind that is not built.
pub fn adapter(folder: &Path) -> Result<String> {
    let adapter = AdapterFolder::open(folder)?;
    let about = adapter.description();
    let mut out = format!("{}\n", folder.display());
    let settings = serde_json::to_value(&about.method)?;
    for (key, value) in settings.as_object().into_iter().flatten() {
        writeln!(out, "  {key}: {}", value.as_str().map_or(value.to_string(), String::from))?;
    }
    let base = about.base_model.as_ref();
    writeln!(out, "base model: {}", base.map_or("not named", |base| &base.name))?;
    if let Some(revision) = base.and_then(|base| base.revision.as_ref()) {
        writeln!(out, "  revision: {revision}")?;
    }
    writeln!(out, "whole modules: {}", about.modules_to_save.join(", "))?;
    let layers = adapter.layers()?;
    writeln!(out, "{} layers:", layers.len())?;
    layers.iter().try_for_each(|layer| writeln!(out, "  {layer}"))?;
    Ok(out)
}

/// The adapted layers by kind: how many, of what shape, with how many parameters each.
fn layer_table(
    out: &mut String,
    model: &AdaptedModel,
    method: &dyn Method,
    layers: usize,
) -> std::fmt::Result {
    let mut kinds: BTreeMap<(String, i64, i64), (usize, i64)> = BTreeMap::new();
    for adapter in model.adapters() {
        let site = adapter.site();
        // Numbers name one layer among its kind.
        let kind = site.name.split('.').filter(|p| p.parse::<u32>().is_err());
        let kind = kind.collect::<Vec<_>>().join(".");
        let entry = kinds.entry((kind, site.in_features, site.out_features)).or_default();
        entry.0 += 1;
        entry.1 = method.trainable_count(site);
    }
    let adapted: usize = kinds.values().map(|(n, _)| n).sum();
    writeln!(out, "\nadapters on {adapted} of {layers} linear layers:")?;
    let widest = kinds.keys().map(|(name, ..)| name.len()).max().unwrap_or(0);
    writeln!(
        out,
        "  {:widest$}  {:>4}  {:>13}  {:>15}",
        "layer", "×", "in → out", "trainable each"
    )?;
    for ((name, from, to), (times, count)) in &kinds {
        let shape = format!("{from} → {to}");
        writeln!(out, "  {name:widest$}  {times:>4}  {shape:>13}  {:>15}", thousands(*count))?;
    }
    Ok(())
}

/// What trains at the start, counted and by the closed formula, which must agree.
fn counts(out: &mut String, model: &AdaptedModel, method: &dyn Method) -> Result<()> {
    let mut by_role: BTreeMap<Role, i64> = BTreeMap::new();
    for parameter in model.parameters() {
        *by_role.entry(parameter.role).or_default() += parameter.leaf.numel() as i64;
    }
    let of = |roles: &[Role]| roles.iter().filter_map(|role| by_role.get(role)).sum::<i64>();
    let projections = of(&[Role::Projection]);
    let vectors = of(&[Role::Vector, Role::SingularValue, Role::Gate]);
    let own = of(&[Role::Weight, Role::WeightBias]);
    let head = of(&[Role::Head, Role::HeadBias]);
    let counted = projections + vectors + own;
    let formula: i64 = model.adapters().map(|a| method.trainable_count(a.site())).sum();
    let total: usize = model.backbone().var_store().variables().values().map(|t| t.numel()).sum();
    writeln!(out, "\ntrainable at the start:")?;
    for (what, n) in [
        ("projection matrices", projections),
        ("vectors, values and gates", vectors),
        ("the model's own weights", own),
    ] {
        if n > 0 {
            writeln!(out, "  {what:31} {:>12}", thousands(n))?;
        }
    }
    for (what, n) in [
        ("together (the paper's count)", counted),
        ("by the method's closed formula", formula + own),
        ("head, on top", head),
        ("frozen weights of the model", total as i64 - head - own),
    ] {
        writeln!(out, "  {what:31} {:>12}", thousands(n))?;
    }
    ensure!(counted == formula + own, "{out}\nthe count and its closed formula differ");
    Ok(())
}

/// Matrix products a token, in thousands of floating-point operations.
fn operations(out: &mut String, model: &AdaptedModel, freezes: bool) -> std::fmt::Result {
    let (frozen, paths) = model.flops_per_token();
    let row = |out: &mut String, what: &str, flops: Flops| {
        let kilo = |n: i64| thousands(n / 1000);
        let (forward, backward) = (kilo(flops.forward), kilo(flops.backward));
        let share = 100.0 * flops.total() as f64 / frozen.total() as f64;
        writeln!(out, "  {what:31} {forward:>12} {backward:>12} {share:>9.2}%")
    };
    writeln!(out, "\nthousand operations a token, adapted layers:")?;
    writeln!(out, "  {:31} {:>12} {:>12} {:>10}", "", "forward", "backward", "of frozen")?;
    row(out, "frozen weights", frozen)?;
    row(out, "paths beside them", paths)?;
    if freezes {
        row(out, "paths, all matrices frozen", model.flops_when_frozen())?;
    }
    Ok(())
}
