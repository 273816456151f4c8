//! Other people's programs: their project depends on what cargo packages of `aflora-models` and `aflora-core`,
//! without a `[patch]` of tch, and they train.
//!
//! The test calls cargo, offline, with the workspace's own lock and build folder, so that most of
//! what it needs is there already: crates, and what the C++ compiler made (`AFLORA_SHIMS`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A crate's name and version.
type Crate = (String, String);

/// The crates that are built for the packages in `folder`, each with the sets of features that it is built with.
fn features(folder: &Path, edges: &str, more: &[String]) -> BTreeMap<Crate, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--workspace", "--prefix", "none", "--format", "{p}|{f}"])
        .args(["--edges", edges])
        .args(more)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found: BTreeMap<Crate, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Some((package, features)) = line.split_once('|') else { continue };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let package = (name.to_string(), version.trim_start_matches('v').to_string());
        found.entry(package).or_default().insert(features.trim_end_matches(" (*)").to_string());
    }
    found
}

/// What a project's manifest has to say beside its own for other people's crates to be built with the features
/// that the workspace builds them with: else most are built once more, for some minutes of a processor. That a
/// crate is left out costs no more than that.
fn with_features_of(workspace: &Path, project: &Path, more: &[String]) -> String {
    let target = features(project, "normal,no-proc-macro", more);
    let there = features(workspace, "normal,dev,no-proc-macro", &[]);
    let mut lines = wanted(&target, &there);
    let mut host = features(project, "normal,build", more);
    host.retain(|package, _| !target.contains_key(package));
    lines.push_str("[build-dependencies]\n");
    lines + &wanted(&host, &features(workspace, "normal,build,dev", &[]))
}

/// A line for each crate that the workspace builds in one way, and the project in another.
fn wanted(
    project: &BTreeMap<Crate, BTreeSet<String>>,
    workspace: &BTreeMap<Crate, BTreeSet<String>>,
) -> String {
    let line = |(package, own): (&Crate, &BTreeSet<String>)| {
        let there = workspace.get(package).filter(|there| there.len() == 1)?;
        let (name, version) = package;
        let is_ours = name == "tch" || name.starts_with("aflora");
        let features: Vec<&str> = there.first()?.split(',').filter(|f| !f.is_empty()).collect();
        let line = format!(
            "{name} = {{ version = \"={version}\", default-features = false, features = {features:?} }}\n"
        );
        (!is_ours && own != there).then_some(line)
    };
    project.iter().filter_map(line).collect()
}

/// A project that depends on these crates, each of its programs built and run by a cargo with these further
/// arguments; what they printed. What both are made of is built once.
fn built_and_run(crates: [&str; 2], more: &[String], programs: [(&str, &str); 2]) -> [String; 2] {
    let place = tempfile::tempdir().unwrap();
    let workspace = workspace();
    let [core, models] = crates.map(|name| format!("{name} = {VERSION:?}"));
    let manifest = format!(
        "[package]\nname = \"outside\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
         [dependencies]\ntch = \"=0.24.0\"\n{core}\n{models}\n\n[workspace]\n"
    );
    let sources = place.path().join("src/bin");
    fs::create_dir_all(&sources).unwrap();
    for (name, text) in programs {
        fs::write(sources.join(format!("{name}.rs")), text).unwrap();
    }
    let write = |manifest: &str| {
        fs::write(place.path().join("Cargo.toml"), manifest).unwrap();
        fs::copy(workspace.join("Cargo.lock"), place.path().join("Cargo.lock")).unwrap();
    };
    write(&manifest);
    let same = with_features_of(&workspace, place.path(), more);
    write(&manifest.replace("\n[workspace]", &format!("{same}\n[workspace]")));
    programs.map(|(name, _)| {
        let output = Command::new(env!("CARGO"))
            // With the workspace's profiles, or all would be built once more.
            .args(["run", "--quiet", "--offline", "--bin", name, "--config"])
            .arg(workspace.join(".cargo/config.toml"))
            .args(more)
            .arg("--")
            .arg(workspace.join("crates/aflora-models/tests/fixtures/bert_classes/config.json"))
            .env("CARGO_TARGET_DIR", workspace.join("target"))
            // Other people's projects are not linted.
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .current_dir(place.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {told}");
        String::from_utf8(output.stdout).unwrap()
    })
}

/// The first and the last of the losses that a project printed.
fn assert_fell(losses: &str) {
    let losses: Vec<f64> =
        losses.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(losses.len() == 2 && losses[1] < losses[0], "{losses:?}");
}

/// What is kept of the C++ compiler's work.
fn shims() -> Vec<PathBuf> {
    let kept = fs::read_dir(workspace().join("target/shims")).into_iter().flatten().flatten();
    let mut kept: Vec<_> = kept.map(|file| file.path()).collect();
    kept.sort();
    kept
}

/// The crates are in no registry yet: what cargo would send there stands in for it, unpacked.
#[test]
fn projects_train_without_a_patch_with_what_cargo_packages_of_the_crates() {
    const PACKAGED: [&str; 4] = ["aflora-files", "aflora-cuda", "aflora-core", "aflora-models"];
    // The same place each time: what is built of it does not pile up.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let packages = PACKAGED.iter().flat_map(|name| ["--package", name]);
    let package = Command::new(env!("CARGO"))
        .args(["package", "--quiet", "--offline", "--no-verify", "--allow-dirty"])
        .args(packages)
        .arg("--target-dir")
        .arg(&place)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(package.status.success(), "{}", String::from_utf8_lossy(&package.stderr));
    let mut config = Vec::new();
    for name in PACKAGED {
        let archive = place.join(format!("package/{name}-{VERSION}.crate"));
        let mut unpack = Command::new("tar");
        let unpack = unpack.arg("xzmf").arg(&archive).current_dir(&place);
        assert!(unpack.status().unwrap().success(), "{name}");
        let folder = place.join(format!("{name}-{VERSION}"));
        config.push("--config".to_string());
        config.push(format!("patch.crates-io.{name}.path={:?}", folder.to_str().unwrap()));
    }
    let kept = shims();
    let programs = [("with_models", WITH_MODELS), ("with_core", WITH_CORE)];
    for losses in built_and_run(["aflora-core", "aflora-models"], &config, programs) {
        assert_fell(&losses);
    }
    assert_eq!(kept, shims(), "the shims of a package are those of the workspace");
}

const WITH_MODELS: &str = r#"
use std::collections::BTreeMap;

use aflora_core::adapter::{Aflora, AfloraConfig};
use aflora_core::{Tuner, TunerConfig};
use aflora_models::{build, AdaptedModel, Batch, Head, Options, Pattern, Targets};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = std::env::args().nth(1).ok_or("no config.json")?;
    let bert = build("bert", config.as_ref(), Head::Classes(2), &Options::new(Device::Cpu))?;
    tch::manual_seed(1);
    // In the order of their names, so that each weight gets the same numbers in every run.
    let weights: BTreeMap<_, _> = bert.var_store().variables().into_iter().collect();
    for mut weight in weights.into_values().filter(|weight| weight.dim() == 2) {
        let random = Tensor::randn(weight.size(), (Kind::Float, Device::Cpu)) * 0.2;
        tch::no_grad(|| weight.copy_(&random));
    }
    let method = Aflora::new(AfloraConfig::default())?;
    let target_modules = Pattern::Names(vec!["query".into(), "value".into()]);
    let targets = Targets { target_modules, ..Default::default() };
    let model = AdaptedModel::new(bert, &method, &targets, &[], Kind::Float, 1)?;
    let mut tuner = Tuner::new(TunerConfig::default(), &method, model.parameters(), 10, 40)?;
    let ids = Tensor::from_slice(&[2i64, 7, 9, 3, 2, 8, 4, 3]).view([2, 4]);
    let labels = Tensor::from_slice(&[0i64, 1]);
    let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
    let loss = |train| -> Result<Tensor, aflora_models::Error> {
        Ok(model.forward(&batch, train)?.logits.cross_entropy_for_logits(&labels))
    };
    let before = loss(false)?.double_value(&[]);
    for _ in 0..40 {
        let _ = tuner.step(&loss(true)?)?;
    }
    println!("{before} {}", loss(false)?.double_value(&[]));
    Ok(())
}
"#;

const WITH_CORE: &str = r#"
use aflora_core::adapter::{Aflora, AfloraConfig};
use aflora_core::nn::{self, capture_named, Module};
use aflora_core::{Injection, Tuner, TunerConfig};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(1);
    let vs = nn::VarStore::new(Device::Cpu);
    let (model, layers) = capture_named(&vs, || {
        let up = nn::linear(vs.root() / "body" / "up", 8, 16, Default::default());
        let head = nn::linear(vs.root() / "head", 16, 2, Default::default());
        nn::seq().add(up).add_fn(|x| x.relu()).add(head)
    });
    let method = Aflora::new(AfloraConfig::default())?;
    let body = layers.into_iter().filter(|layer| layer.site.name.starts_with("body."));
    let injection = Injection::new(&vs, body.collect(), &method, &["head"], 42)?;
    let mut tuner = Tuner::new(TunerConfig::default(), &method, injection.parameters(), 10, 20)?;
    let x = Tensor::randn([4, 8], (Kind::Float, Device::Cpu));
    let labels = Tensor::from_slice(&[0i64, 1, 0, 1]);
    injection.set_training(true);
    let mut losses = Vec::new();
    for _ in 0..20 {
        let loss = model.forward(&x).cross_entropy_for_logits(&labels);
        losses.push(loss.double_value(&[]));
        let _ = tuner.step(&loss)?;
    }
    println!("{} {}", losses[0], losses[19]);
    Ok(())
}
"#;
