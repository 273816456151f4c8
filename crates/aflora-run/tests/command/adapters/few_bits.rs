//! Adapters on a base in few bits or of random weights: merged, and exported with it.

use super::*;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

#[test]
fn a_base_in_few_bits_learns_and_is_merged_as_it_was_trained() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| train_on_rows(place.path(), &[&["batch_size=4"], more]);
    let few = ["model=minilm", "precision=nf4_nested", "lr=2e-3"];
    ok(&train(&[&few[..], &["method=lora", "epochs=40", "run_dir=few"]].concat()));
    let metrics = json(&place.path().join("few/metrics.json"));
    let loss = metrics["best"]["loss"].as_f64().unwrap();
    assert!(loss < 0.5, "of 0.69 by guessing: {loss}");
    let score = |run: &str| {
        let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
        rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let expected = score("few");

    ok(&aflora(place.path(), &["merge", "few", "merged", "--as", "f32"]));
    // Beside what the restored weights gain.
    let output = aflora(place.path(), &["merge", "few", "half"]);
    ok(&output);
    let told = text(&output.stderr);
    assert!(told.contains("in bfloat16; --as f32 rounds nothing"), "{told}");
    assert!(told.contains("it moves a logit by") && !told.contains("NaN"), "{told}");
    // A step that changes nothing: what is judged is what was merged.
    let still = ["max_steps=1", "head_lr=1e-12", "method=head", "precision=fp32"];
    ok(&train(&[&still[..], &["model=./merged", "run_dir=still"]].concat()));
    for (found, expected) in score("still").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    // The two apart, as they were trained.
    ok(&aflora(place.path(), &["export", "few", "apart", "--base", "base"]));
    let config = json(&place.path().join("base/config.json"));
    assert_eq!(config["quantization_config"]["bnb_4bit_use_double_quant"], true);
    let named = json(&place.path().join("apart/adapter_config.json"));
    let named = named["base_model_name_or_path"].as_str().unwrap();
    assert_eq!(Path::new(named), place.path().join("base"));
    let still = ["max_steps=1", "lr=1e-12", "head_lr=1e-12", "precision=nf4_nested"];
    let apart = ["model=./base", "adapter=apart", "run_dir=apart-still"];
    ok(&train(&[&still[..], &apart].concat()));
    for (found, expected) in score("apart-still").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
    let export =
        |run: &str, target: &str| aflora(place.path(), &["export", run, target, "--base", "other"]);
    refused(&export("few", "adapter.gguf"), 2, "llama.cpp has files of its own");
    refused(&export("still", "other-adapter"), 2, "the run's base is not in few bits");
    for target in ["other", "other/within"] {
        refused(&export("few", target), 2, "need folders of their own");
    }
    // What has no adapters leaves no base behind.
    ok(&train(&["max_steps=1", "method=bitfit", "precision=nf4", "run_dir=biases"]));
    let none = export("biases", "other-adapter");
    assert_ne!(none.status.code(), Some(0));
    assert!(text(&none.stderr).contains("nothing to export"), "{}", text(&none.stderr));
    assert!(!place.path().join("other").exists() && !place.path().join("other-adapter").exists());

    let words = "cannot be held in few bits";
    refused(&train(&[&few[..], &["method=full"]].concat()), 2, words);
}

#[test]
fn a_base_whose_products_are_of_eight_bits_learns_and_is_merged_as_it_is_restored() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| train_on_rows(place.path(), &[&["batch_size=4"], more]);
    for format in ["fp8", "int8_dynamic"] {
        let [precision, run_dir] = [("precision", format), ("run_dir", format)]
            .map(|(key, value)| format!("{key}={value}"));
        let eight = ["model=minilm", &precision, "method=lora", "lr=2e-3", "epochs=40", &run_dir];
        ok(&train(&eight));
        let metrics = json(&place.path().join(format).join("metrics.json"));
        let loss = metrics["best"]["loss"].as_f64().unwrap();
        assert!(loss < 0.5, "of 0.69 by guessing: {loss}");
        let [merged, still] = ["merged", "still"].map(|what| format!("{what}-{format}"));
        ok(&aflora(place.path(), &["merge", format, &merged, "--as", "f32"]));
        let settings = ["max_steps=1", "head_lr=1e-12", "method=head", "precision=fp32"];
        let named = [format!("model=./{merged}"), format!("run_dir={still}")];
        ok(&train(&[&settings[..], &named.each_ref().map(String::as_str)].concat()));
        let scores = |run: &str| {
            let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
            rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        // Apart by what the run rounded what its products read.
        let (still, learned) = (scores(&still), scores(format));
        assert_ne!(still, learned, "{format}");
        for (found, expected) in still.iter().zip(learned) {
            assert!((found - expected).abs() < 0.05, "{format}: {found} is not {expected}");
        }
    }
    let export = |run: &str| {
        let base = format!("base-{run}");
        aflora(place.path(), &["export", run, &format!("apart-{run}"), "--base", &base])
    };
    refused(&export("fp8"), 2, "the run's base is in fp8, which bitsandbytes has not");
    ok(&export("int8_dynamic"));
}

#[test]
fn the_base_of_a_run_on_random_weights_is_exported_as_those_of_files_are() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| train_on_rows(place.path(), &[&["precision=nf4"], more]);
    let random = ["model=tiny-deberta", "method=lora", "lr=1e-2", "max_steps=8"];
    ok(&train(&[&random[..], &["run_dir=random"]].concat()));
    ok(&aflora(place.path(), &["export", "random", "apart", "--base", "base"]));
    let scores = |run: &str| {
        let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
        rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let still = ["model=./base", "adapter=apart", "lr=1e-12", "head_lr=1e-12", "max_steps=1"];
    ok(&train(&[&still[..], &["run_dir=still"]].concat()));
    for (found, expected) in scores("still").iter().zip(scores("random")) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
}

#[test]
fn a_merged_model_has_the_numbers_of_the_base_models_file_and_rounding_is_told() {
    let place = place();
    let place = place.path();
    let path = place.join("minilm/model.safetensors");
    let tensors = |path: &Path| -> BTreeMap<String, Tensor> {
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    };
    let merge = |target: &str, more: &[&str]| {
        let output = on(place, "merge", "lora", &[&[target], more].concat());
        ok(&output);
        text(&output.stderr)
    };
    let told = merge("single", &[]);
    assert!(!told.contains("rounded"), "{told}");
    let half: Vec<(String, Tensor)> = tensors(&path)
        .into_iter()
        .map(|(name, weight)| (name, weight.to_kind(Kind::BFloat16)))
        .collect();
    Tensor::write_safetensors(&half, &path).unwrap();
    let told = merge("plain", &[]);
    assert!(told.contains("in bfloat16, as the base model's file"), "{told}");
    assert!(told.contains("8 weights with an adapter in them, each rounded once"), "{told}");
    assert!(!merge("exact", &["--dtype", "f32"]).contains("rounded once"));
    assert!(merge("half", &["--as", "f16"]).contains("it moves a logit by"));
    let exact = tensors(&place.join("exact/model.safetensors"));
    for (folder, kind) in [("plain", Kind::BFloat16), ("half", Kind::Half)] {
        let found = tensors(&place.join(folder).join("model.safetensors"));
        assert!(found.keys().eq(exact.keys()));
        for (name, weight) in found {
            assert_eq!(weight.kind(), kind, "{name}");
            assert_eq!(weight, exact[&name].to_kind(kind), "{name}");
        }
    }
    let dtype = |folder: &str| json(&place.join(folder).join("config.json"))["dtype"].clone();
    assert_eq!(
        ["single", "plain", "exact", "half"].map(dtype),
        ["float32", "bfloat16", "float32", "float16"]
    );
    refused(&on(place, "merge", "lora", &["more", "--as", "q8_0"]), 2, "is of a GGUF file");
    // Of an adapter that adds little, little is left.
    let little = ["combine", "little", "--adapter", "lora:0.001", "--model", "minilm", "--data"];
    ok(&aflora(place, &[&little[..], &["."]].concat()));
    let output = on(place, "merge", "little", &["drowned"]);
    ok(&output);
    let told = text(&output.stderr);
    assert!(told.contains("WARN 8 weights") && told.contains("--as f32 rounds nothing"), "{told}");
}
