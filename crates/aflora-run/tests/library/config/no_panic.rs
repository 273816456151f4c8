//! Nothing that a file or an override can hold makes it panic.

use super::*;
use proptest::prelude::*;

/// Texts that are often almost right.
fn yaml() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        "[ \\n:{}\\[\\],'\"#&*!|>%@`=.-]{1,3}",
        "\\PC{0,6}",
        prop::sample::select(vec![
            "task", "model", "method", "run", "run_for", "minilm", "lr", "adamw", "freeze", "mrpc",
            ": ", "\n", "\n  ", "null", "1e-2", ".nan", "70%", "&a ", "*a", "<<: ", "---\n", "- ",
        ])
        .prop_map(str::to_string),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_in_a_file_makes_it_panic(text in yaml(), block in yaml()) {
        let blocks = [("tasks/mrpc.yaml", block.as_str()), ("methods/aflora.yaml", &block)];
        let (_keep, path) = folder(&text, &blocks);
        for overrides in [vec![], vec!["task=mrpc".to_string()]] {
            if let Err(errors) = load(&path, &overrides) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_override_makes_it_panic(
        key in "[a-z_.]{0,8}|task|model|method|method\\.freeze|lr|model\\.layers|run_dir",
        value in yaml(),
        odd in "\\PC{0,12}",
    ) {
        for overrides in [vec![format!("{key}={value}")], vec![odd.clone(), format!("{key}={odd}")]] {
            if let Err(errors) = load(&configs().join("experiment.yaml"), &overrides) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}
