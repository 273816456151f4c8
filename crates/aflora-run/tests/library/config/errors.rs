//! What is wrong is shown, all of it, with its place.

use super::*;

#[test]
fn all_problems_of_all_files_are_shown_at_once() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/broken");
    let overrides = ["model.layer=[1]".to_string(), "device=tpu".to_string()];
    let printed = load(&fixtures.join("run.yaml"), &overrides).unwrap_err().to_string();
    let printed = printed.replace(&format!("{}/", fixtures.display()), "") + "\n";
    let golden = fixtures.join("errors.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &printed).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(printed, expected, "if the new text is better: UPDATE_GOLDEN=1 cargo test");
}

#[test]
fn a_missing_run_file_names_those_that_exist() {
    let (keep, _) = folder("task: reviews\n", &[]);
    let errors = load(&keep.path().join("runn.yaml"), &["epochs=0".into()]).unwrap_err();
    let printed = errors.to_string();
    assert!(printed.contains("did you mean `run.yaml`?"), "{printed}");
    assert!(printed.contains("`epochs` is 0"), "{printed}");
    assert_eq!(errors.0.len(), 2, "{printed}");
}

#[test]
fn a_broken_file_hides_no_mistake_of_another() {
    let task = ("tasks/mrpc.yaml", "task: mrpc\nrun: {lr: 1\n");
    let (_keep, path) = folder("task: mrpc\nmodel: minilm\nlr: quick\n", &[task]);
    let errors = load(&path, &["method.rank=0".into()]).unwrap_err();
    let printed = errors.to_string();
    assert_eq!(errors.0.len(), 3, "{printed}");
    for part in ["mrpc.yaml:2:6", "run.yaml:3:5", "command line:1:13"] {
        assert!(printed.contains(part), "{part} is missing in\n{printed}");
    }
}

#[test]
fn a_file_that_sets_nothing_lacks_a_task() {
    for text in ["", "# nothing\n", "{}\n", "model: minilm\n"] {
        let (_keep, path) = folder(text, &[]);
        let printed = load(&path, &[]).unwrap_err().to_string();
        assert!(printed.contains("no task is named"), "{printed}");
    }
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let (keep, path) = folder("", &[]);
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    let printed = load(&path, &[]).unwrap_err().to_string();
    assert!(printed.contains("cannot read"), "{printed}");
    let printed = load(keep.path(), &[]).unwrap_err().to_string();
    assert!(printed.contains("cannot read"), "{printed}");
}

#[test]
fn nesting_without_end_is_refused() {
    let (_keep, path) = folder(&"[".repeat(100_000), &[]);
    assert!(load(&path, &[]).is_err());
    assert!(shipped(&[&format!("lr={}", "{a: ".repeat(10_000))]).is_err());
}
