//! Every target on its seeds and on a thousand mutations of them: what libFuzzer does at
//! length, in seconds, and the same each time.

use aflora_fuzz::mutate::mutation;
use aflora_fuzz::{FuzzTarget, TARGETS};
use std::time::Instant;

/// Mutations a target; `AFLORA_FUZZ_CASES` asks for others.
fn cases() -> u64 {
    let asked = std::env::var("AFLORA_FUZZ_CASES").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(1000)
}

fn replay(name: &str) {
    let target: &FuzzTarget = aflora_fuzz::find(name).unwrap();
    let seeds = (target.seeds)();
    assert!(
        !seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()),
        "{name}: a seed is gone"
    );
    let started = Instant::now();
    seeds.iter().for_each(|seed| (target.run)(seed));
    for number in 0..cases() {
        let seed = &seeds[number as usize % seeds.len()];
        let input = mutation(seed, number);
        let run = std::panic::catch_unwind(|| (target.run)(&input));
        if run.is_err() {
            let path = std::env::temp_dir().join(format!("{name}-{number}.input"));
            let _ = std::fs::write(&path, &input);
            panic!("{name}: mutation {number} panics; it lies in {}", path.display());
        }
    }
    println!("{name}: {} cases in {:.1} s", cases(), started.elapsed().as_secs_f64());
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

replays! {
    config experiment targets tsv jsonl conll csv parquet safetensors pickle weight_index model_config
    adapter_folder tokenizer_json sentencepiece vocabulary events state gradients run_folder
    results hub
    tokenizer_settings generation_config chat_template
    gguf gguf_tokenizer
}
