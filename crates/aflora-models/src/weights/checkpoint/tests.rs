use super::*;
use aflora_core::weight::BlockFormat;
use proptest::prelude::*;
use tch::Device;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let checkpoint = Checkpoint::open(path)?;
    let shapes: Vec<_> = checkpoint.shapes().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    shapes
        .into_iter()
        .map(|(name, shape)| {
            let mut tensor = Tensor::zeros(&shape[..], (Kind::Double, Device::Cpu));
            checkpoint.copy_to(&name, &mut tensor)?;
            Ok((name, tensor))
        })
        .collect()
}

#[test]
fn both_layouts_of_pytorch_hold_the_tensors_of_safetensors() {
    let expected = tensors(&fixture("tensors.safetensors")).unwrap();
    assert_eq!(expected.len(), 6);
    for name in ["zip.bin", "stream.bin"] {
        assert_eq!(tensors(&fixture(name)).unwrap(), expected, "{name}");
    }
    let linear = tensors(&fixture("parameters.bin")).unwrap();
    assert_eq!(linear.keys().collect::<Vec<_>>(), ["bias", "extra", "weight"]);
    assert_eq!(linear["extra"].sum(Kind::Double).double_value(&[]), 2.0);
}

#[test]
fn weights_of_bitsandbytes_are_read_to_the_bit_as_it_restores_them() {
    let found = tensors(&fixture("bitsandbytes.safetensors")).unwrap();
    let expected = tensors(&fixture("bitsandbytes_restored.safetensors")).unwrap();
    assert_eq!(found.len(), expected.len() + 1, "{:?}", found.keys());
    for (name, expected) in expected {
        assert_eq!(found[&name], expected, "{name}");
        let checkpoint = Checkpoint::open(&fixture("bitsandbytes.safetensors")).unwrap();
        let codes = checkpoint.few_bits(&name).unwrap().unwrap();
        assert_eq!(codes.restore(Kind::Double), expected, "{name}");
    }
}

#[test]
fn blocks_of_every_format_are_held_as_they_lie_and_restored_to_the_bit() {
    let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    let file = Checkpoint::open(&gguf.join("blocks.gguf")).unwrap();
    let mut held = Vec::new();
    for (name, expected) in Tensor::read_safetensors(gguf.join("blocks.safetensors")).unwrap() {
        let Some(weight) = file.few_bits(&name).unwrap() else { continue };
        let Coding::Blocks(format) = weight.coding() else { panic!("{name}: {weight:?}") };
        assert_eq!(weight.bytes(), (512 / format.numbers() * format.bytes()) as i64, "{name}");
        let bits = |tensor: &Tensor| tensor.contiguous().view_dtype(Kind::Int);
        assert!(bits(&weight.restore(Kind::Float)).equal(&bits(&expected)), "{name}");
        let half = weight.restore(Kind::BFloat16);
        assert!(half.equal(&expected.to_kind(Kind::BFloat16)), "{name}");
        held.push(*format as i64);
    }
    held.sort_unstable();
    assert_eq!(held, BlockFormat::ALL.map(|format| format as i64));
}

#[test]
fn weights_of_bitsandbytes_that_do_not_fit_are_refused_where_they_are_asked_for() {
    let whole = std::fs::read(fixture("bitsandbytes.safetensors")).unwrap();
    let changed = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let folder = tempfile::tempdir().unwrap();
    for (from, to, name, expected) in [
        ("\"shape\": [4, 64]", "\"shape\": [5, 64]", "fp4.weight", "`weight` is Uint8"),
        ("\"shape\": [4, 64]", "\"shape\": [4,164]", "fp4.weight", "`weight` is Uint8"),
        (
            "\"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [6",
            "\"blocksize\": 63",
            "plain.weight",
            "blocksize is 63",
        ),
        ("plain.weight.absmax", "plain.weight.absmin", "plain.weight", "no `absmax`"),
        (
            "{\"quant_type\": \"fp4\"",
            "[\"quant_type\": \"fp4\"",
            "fp4.weight",
            "bitsandbytes__fp4`: ",
        ),
    ] {
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, changed(from, to)).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let (_, what) = checkpoint.unread().find(|(unread, _)| *unread == name).unwrap();
        assert!(what.contains(expected), "{to}: {what}");
        assert!(!checkpoint.shapes().any(|(found, _)| found == name), "{to}");
    }
}

#[test]
fn a_pickle_that_is_more_than_tensors_is_refused_by_name() {
    for (name, expected) in [
        ("runs_code.bin", "asks for `posix.system`, which is no tensor: refused"),
        ("hides_code.bin", "asks for `__builtin__.eval`, which is no tensor: refused"),
        ("list.bin", "it holds a list, no dict of tensors by name"),
        ("only_extras.bin", "a dict without a tensor by name; it has `complex`: a tensor of a"),
        ("plain.bin", "neither an archive nor a stream of PyTorch"),
    ] {
        let error = tensors(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.contains("not a readable PyTorch file"), "{name}: {error}");
    }
}

#[test]
fn what_no_model_needs_is_skipped_and_named_where_it_is_asked_for() {
    let expected = tensors(&fixture("tensors.safetensors")).unwrap();
    for (name, unread) in [
        ("extras.safetensors", ("eight", "a tensor of the type F8_E4M3")),
        ("extras.bin", ("device", "a device")),
        ("extras.bin", ("eight", "a tensor of a type that is not read")),
        ("extras_stream.bin", ("complex", "a tensor of a type that is not read")),
        ("extras_stream.bin", ("step", "a whole number")),
    ] {
        assert_eq!(tensors(&fixture(name)).unwrap(), expected, "{name}");
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert!(checkpoint.unread().any(|found| found == unread), "{name}: {unread:?}");
        let mut target = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let error = checkpoint.copy(unread.0, &mut target).unwrap_err().to_string();
        assert!(error.contains(&format!("`{}` is {} there", unread.0, unread.1)), "{error}");
    }
}

#[test]
fn a_state_dict_in_a_dict_of_more_is_found() {
    let expected = tensors(&fixture("tensors.safetensors")).unwrap();
    assert_eq!(tensors(&fixture("nested.bin")).unwrap(), expected);
    let trainer = tensors(&fixture("trainer.bin")).unwrap();
    assert_eq!(trainer.len(), expected.len());
    assert_eq!(trainer["module._orig_mod.row"], expected["row"]);
}

#[test]
fn a_file_that_is_no_checkpoint_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("tensors.safetensors")).unwrap();
    let zip = std::fs::read(fixture("zip.bin")).unwrap();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    for (name, bytes, expected) in [
        ("model.safetensors", &lfs[..], "it is a Git-LFS pointer"),
        ("pytorch_model.bin", lfs, "it is a Git-LFS pointer"),
        ("model.safetensors", b"<!DOCTYPE html><p>Sign in", "it is a web page (HTML)"),
        ("model.safetensors", b"", "it is empty"),
        ("model.safetensors", &zip, "its name should end in .bin"),
        ("pytorch_model.bin", &whole, "its name should end in .safetensors"),
        ("model.safetensors", &whole[..whole.len() - 1], "may be truncated: get it again"),
        ("pytorch_model.bin", &zip[..zip.len() / 2], "may be truncated: get it again"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = tensors(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        let cut = expected.contains("truncated");
        assert_eq!(error.contains("truncated"), cut, "{error}");
    }
    let error = tensors(&fixture("list.bin")).unwrap_err().to_string();
    assert!(!error.contains("truncated"), "{error}");
}

fn shards(folder: &Path, map: &[(&str, &str)]) -> PathBuf {
    let map: BTreeMap<_, _> = map.iter().copied().collect();
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    let path = folder.join("model.safetensors.index.json");
    std::fs::write(&path, index.to_string()).unwrap();
    path
}

#[test]
fn shards_are_read_as_one_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let one = |t: f64| Tensor::full([2], t, (Kind::Float, Device::Cpu));
    let a = folder.path().join("model-00001-of-00002.safetensors");
    Tensor::write_safetensors(&[("a", one(1.0)), ("more", one(9.0))], &a).unwrap();
    let b = folder.path().join("model-00002-of-00002.safetensors");
    Tensor::write_safetensors(&[("b", one(2.0))], &b).unwrap();
    let map =
        [("a", "model-00001-of-00002.safetensors"), ("b", "model-00002-of-00002.safetensors")];
    shards(folder.path(), &map);
    let found = tensors(folder.path()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(found["b"].double_value(&[0]), 2.0);

    let error = |folder: &Path| tensors(folder).unwrap_err().to_string();
    std::fs::remove_file(&b).unwrap();
    let words = error(folder.path());
    assert!(words.contains("the shard `model-00002-of-00002.safetensors` is not"), "{words}");
    shards(folder.path(), &[("c", "model-00001-of-00002.safetensors")]);
    assert!(error(folder.path()).contains("`c` is not in the shard"));
    shards(folder.path(), &[("c", "../secret.safetensors")]);
    assert!(error(folder.path()).contains("is no file name"));
    std::fs::write(folder.path().join("model.safetensors.index.json"), "{\"weight_").unwrap();
    assert!(error(folder.path()).contains("not a readable index file"));
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("looked for model.safetensors, model.safetensors.i"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Cut or changed anywhere, a file is read as something or refused; never a crash.
    #[test]
    fn a_damaged_file_is_refused_and_never_a_crash(
        which in 0..3usize, at in 0.0..1.0f64, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let name = ["tensors.safetensors", "zip.bin", "stream.bin"][which];
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let read = tensors(&path);
        prop_assert!(!cut || read.is_err(), "a file cut at {at} was read");
    }
}
